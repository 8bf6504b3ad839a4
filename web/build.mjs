// Bundles the page's script into the folder that is given: `cargo xtask page` calls this. The agent embeds static/ as it is.
import { build } from "esbuild";
import { mkdir } from "node:fs/promises";

const out = process.argv[2];
if (!out) throw new Error("usage: node build.mjs FOLDER");
await mkdir(out, { recursive: true });
await build({
  entryPoints: { page: "src/main.tsx" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "eof",
});
