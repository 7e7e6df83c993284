import { render } from "preact";
import "../style/look.css";
import { placeOf } from "./place.js";
import { Viewer } from "./viewer.js";

const place = placeOf(location);
const root = document.getElementById("root");
if (root) render(<Viewer place={place} />, root);
