/**
 * Bytes and tables as text. Guarantees: what `printable` gives stays on one line, moves no cursor, and differs for
 * different bytes; the JSON form of bytes loses nothing.
 */
import { textOf } from "../protocol/bytes.ts";

/** UTF-8 text as it is, but control characters and the backslash escaped; bytes that are not UTF-8 as `\xNN`. */
export function printable(bytes: Uint8Array): string {
  const text = textOf(bytes);
  if (text !== null) return printableText(text);
  let shown = "";
  for (const byte of bytes) shown += byte < 0x80 ? printableText(String.fromCharCode(byte)) : `\\x${hexByte(byte)}`;
  return shown;
}

const NAMED: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };

/** Escapes what could break a line or steer a terminal: control characters, separators, direction marks. */
export function printableText(text: string): string {
  return text.replace(/[\\\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return NAMED[character] ?? (code < 0x80 ? `\\x${hexByte(code)}` : `\\u{${code.toString(16)}}`);
  });
}

function hexByte(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}

/** `{ name: text }` for UTF-8, `{ nameBase64: ... }` for other bytes. */
export function bytesField(name: "key" | "value", bytes: Uint8Array): Record<string, string> {
  const text = textOf(bytes);
  if (text !== null) return { [name]: text };
  const { buffer, byteOffset, byteLength } = bytes;
  return { [`${name}Base64`]: Buffer.from(buffer, byteOffset, byteLength).toString("base64") };
}

/** Columns padded to their widest cell, two spaces apart, with a header; each line ends in a newline. */
export function tableText(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...lines.map((line) => [...(line[column] ?? "")].length)));
  const draw = (line: readonly string[]): string =>
    line
      .map((cell, column) => cell + " ".repeat((widths[column] ?? 0) - [...cell].length))
      .join("  ")
      .trimEnd();
  return `${lines.map(draw).join("\n")}\n`;
}
