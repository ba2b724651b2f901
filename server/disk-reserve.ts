/** Watches the free space of the data directory's disk (docs/protocol.md section 8). */
import { statfs } from "node:fs/promises";

const INTERVAL_MS = 2_000;
/** Space must exceed the reserve by this share before writes are taken again: no flapping at the border. */
const HYSTERESIS = 1.1;

/** Looks at once and then every two seconds; returns a function that ends it. A disk that cannot be asked counts as fine. */
export async function watchDisk(options: {
  directory: string;
  reserveBytes: number;
  report: (low: boolean) => void;
}): Promise<() => void> {
  const { directory, reserveBytes, report } = options;
  if (reserveBytes === 0) return () => undefined;
  let low = false;
  const look = async (): Promise<void> => {
    try {
      const { bavail, bsize } = await statfs(directory);
      low = bavail * bsize < (low ? reserveBytes * HYSTERESIS : reserveBytes);
      report(low);
    } catch {
      report(false);
    }
  };
  await look();
  const timer = setInterval(look, INTERVAL_MS);
  return () => clearInterval(timer);
}
