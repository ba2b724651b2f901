/**
 * An ordered map from byte strings (latin1) to `V`: sorted-btree with byte order, and in front of it a plain Map of the keys
 * used last, as a lookup there costs a quarter of a descent. The tree alone holds what is there.
 */
import sortedBtree from "sorted-btree";

type Tree<V> = sortedBtree.default<string, V>;
type TreeClass = typeof sortedBtree.default;

// Its build is CommonJS: Node's default import is the module object, that of bundlers and test runners the class itself.
const imported: unknown = sortedBtree;
const BTree = (
  typeof imported === "function" ? imported : (imported as { readonly default: unknown }).default
) as TreeClass;

const RECENT_KEYS_MAX = 1 << 20;

function byteOrder(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export class OrderedIndex<V extends object> {
  readonly #tree: Tree<V> = new BTree<string, V>(undefined, byteOrder);
  readonly #recent = new Map<string, V>();

  get size(): number {
    return this.#tree.size;
  }

  get(key: string): V | undefined {
    const recent = this.#recent.get(key);
    if (recent) return recent;
    const value = this.#tree.get(key);
    if (value) this.#used(key, value);
    return value;
  }

  set(key: string, value: V): void {
    this.#tree.set(key, value);
    this.#used(key, value);
  }

  delete(key: string): void {
    this.#tree.delete(key);
    this.#recent.delete(key);
  }

  /** Entries with from <= key < to in order, or in reverse order; `to` null for no end. */
  *range(options: { from: string; to: string | null; reverse: boolean }): Generator<readonly [key: string, value: V]> {
    const { from, to, reverse } = options;
    // The tree's iterator backwards from a key needs an entry to start at.
    if (this.#tree.isEmpty) return;
    const pairs = reverse ? this.#tree.entriesReversed(to ?? undefined, undefined, true) : this.#tree.entries(from);
    for (const pair of pairs) {
      if (reverse ? pair[0] < from : to !== null && pair[0] >= to) return;
      yield pair;
    }
  }

  #used(key: string, value: V): void {
    if (this.#recent.size >= RECENT_KEYS_MAX) this.#recent.clear();
    this.#recent.set(key, value);
  }
}
