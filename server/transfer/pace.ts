/** How fast bytes come in: a mean over the last few seconds. */
const WINDOW_US = 5_000_000;

export class Pace {
  #samples: { readonly atUs: number; readonly bytes: number }[] = [];
  bytesPerSecond = 0;

  /** `bytes` so far; less than before begins anew. */
  sample(atUs: number, bytes: number): void {
    const last = this.#samples.at(-1);
    if (last && bytes < last.bytes) this.#samples = [];
    this.#samples.push({ atUs, bytes });
    while ((this.#samples[1]?.atUs ?? atUs) <= atUs - WINDOW_US) this.#samples.shift();
    const first = this.#samples[0];
    const spanUs = first ? atUs - first.atUs : 0;
    this.bytesPerSecond = first && spanUs > 0 ? ((bytes - first.bytes) * 1_000_000) / spanUs : 0;
  }
}
