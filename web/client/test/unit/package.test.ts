/** The package as it would be published: built, and imported by Node as others import it. */

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";

const client = fileURLToPath(new URL("../..", import.meta.url));
const tsc = join(client, "../node_modules/.bin/tsc");
let home: string;

beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "client-"));
  const made = join(home, "node_modules/@tidegate/client");
  mkdirSync(made, { recursive: true });
  copyFileSync(join(client, "package.json"), join(made, "package.json"));
  execFileSync(tsc, ["-p", "tsconfig.build.json", "--outDir", join(made, "dist")], { cwd: client });
}, 60_000);

afterAll(() => rmSync(home, { recursive: true }));

test("the built package is imported by its name, and nothing of it needs another one", () => {
  const script = 'import * as all from "@tidegate/client"; console.log(Object.keys(all).sort().join(" "))';
  const said = execFileSync(process.execPath, ["--input-type=module", "-e", script], { cwd: home, encoding: "utf8" });
  expect(said.trim()).toBe("Dashboard Refused call mint wouldRefuse");
  const { dependencies } = JSON.parse(readFileSync(join(client, "package.json"), "utf8")) as { dependencies?: object };
  expect(dependencies).toBeUndefined();
});

test("every module has its types, and a program of others compiles against them", () => {
  const dist = join(home, "node_modules/@tidegate/client/dist");
  const names = readdirSync(dist);
  for (const name of names.filter((each) => each.endsWith(".js"))) expect(names).toContain(name.replace(".js", ".d.ts"));
  copyFileSync(join(client, "test/unit/consumer.txt"), join(home, "consumer.ts"));
  const options = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2023", "--lib", "es2023,dom", "consumer.ts"];
  execFileSync(tsc, options, { cwd: home, stdio: "pipe" });
});
