import { render } from "preact";
import "../style/look.css";
import "../style/console.css";
import { keepRenewing } from "./api.js";
import { App } from "./app.js";

keepRenewing();
const root = document.getElementById("root");
if (root) render(<App />, root);
