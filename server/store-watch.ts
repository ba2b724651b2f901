/** Looks whether the stores still lie where they were opened (docs/protocol.md section 6), also while nothing is written to them. */
const INTERVAL_MS = 1_000;

/** Looks every second, one look at a time; returns a function that ends it. */
export function watchStores(look: () => Promise<void>): () => void {
  let looking = false;
  const timer = setInterval(async () => {
    if (looking) return;
    looking = true;
    try {
      await look();
    } finally {
      looking = false;
    }
  }, INTERVAL_MS);
  return () => clearInterval(timer);
}
