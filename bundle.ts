/**
 * Second half of `npm run build`: each program of the package becomes one file, in the place of what tsc wrote for it; libraries stay as
 * they are (docs/decisions/038). What is bundled of other packages is named, with its licence, in dist/LICENSES.txt.
 */
import { chmodSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type Plugin } from "esbuild";

const ROOT = fileURLToPath(new URL(".", import.meta.url));
const PROGRAMS = ["cli/main", "server/main"];
/** Packages with native parts, which have to stay files of their own. */
const NATIVE = ["classic-level", "uWebSockets.js"];

/** Sources that look for a neighbour find the one in dist: `import.meta.url` is the place that tsc gave their module. */
function placed(outfile: string): Plugin {
  return {
    name: "placed",
    setup(builder) {
      builder.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        const text = await readFile(path, "utf8");
        const module = join(ROOT, "dist", relative(ROOT, path).replace(/\.ts$/, ".js"));
        const place = relative(dirname(outfile), module).split(sep).join("/");
        const url = `new URL(${JSON.stringify(place)}, import.meta.url).href`;
        return { contents: text.replaceAll("import.meta.url", url), loader: "ts" };
      });
    },
  };
}

/** The folders of the packages from which something was bundled. */
function packagesOf(inputs: readonly string[]): string[] {
  const folders = new Set<string>();
  for (const input of inputs) {
    const [folder] = input.match(/^.*node_modules\/(?:@[^/]+\/)?[^/]+/) ?? [];
    if (folder) folders.add(folder);
  }
  return [...folders].sort();
}

function licenceOf(folder: string): string {
  const { name, version, license } = JSON.parse(readFileSync(join(ROOT, folder, "package.json"), "utf8")) as Record<
    "name" | "version" | "license",
    string
  >;
  const files = readdirSync(join(ROOT, folder)).filter((file) => /^(licen[cs]e|notice|copying)/i.test(file));
  if (files.length === 0) throw new Error(`${folder} has no licence file: it cannot be bundled`);
  const texts = files.map((file) => readFileSync(join(ROOT, folder, file), "utf8").trim());
  return `${name} ${version} (${license})\n\n${texts.join("\n\n")}\n`;
}

const inputs: string[] = [];
for (const program of PROGRAMS) {
  const outfile = join(ROOT, "dist", `${program}.js`);
  const { metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: [`${program}.ts`],
    outfile,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "esm",
    external: NATIVE,
    // Packages in CommonJS ask for node's own modules with `require`.
    banner: {
      js: 'import { createRequire as requireFrom } from "node:module";\nconst require = requireFrom(import.meta.url);',
    },
    plugins: [placed(outfile)],
    sourcemap: true,
    sourcesContent: false,
    metafile: true,
    logLevel: "warning",
  });
  chmodSync(outfile, 0o755);
  inputs.push(...Object.keys(metafile.inputs));
}
const rule = `\n${"-".repeat(80)}\n\n`;
writeFileSync(join(ROOT, "dist", "LICENSES.txt"), packagesOf(inputs).map(licenceOf).join(rule));
