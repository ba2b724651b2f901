/** A plot as a PNG image, with the font that `plot.ts` names first and none of the machine: it looks the same everywhere. */
import { fileURLToPath } from "node:url";
import { Resvg } from "@resvg/resvg-js";
import { FONT_FAMILY } from "./plot.ts";

/** Pixels of the image per pixel of the document. */
const ZOOM = 2;
const FONTS = ["400Regular/Arimo_400Regular.ttf", "700Bold/Arimo_700Bold.ttf"];

export function pngOf(svg: string): Uint8Array {
  const fontFiles = FONTS.map((path) => fileURLToPath(import.meta.resolve(`@expo-google-fonts/arimo/${path}`)));
  const font = { fontFiles, loadSystemFonts: false, defaultFontFamily: FONT_FAMILY };
  return new Resvg(svg, { fitTo: { mode: "zoom", value: ZOOM }, font }).render().asPng();
}
