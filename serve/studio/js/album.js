// The pictures of this browser, newest first: in IndexedDB, so that they outlive the page, or in memory where that is
// not to be had (private windows).

const NAME = "studio";
const STORE = "prints";

/**
 * @typedef {{id: string, run: string, at: number, blob: Blob, model: string, seconds: number,
 *   settings: import("./settings.js").Settings}} Print
 */

export class Album {
  /** Why pictures are kept in memory only, or null. */
  trouble = null;
  #database = null;
  /** @type {Print[]} */
  prints = [];

  static async open() {
    const album = new Album();
    try {
      album.#database = await promised(opening());
      album.prints = await promised(album.#store("readonly").getAll());
      album.prints.sort((one, other) => other.at - one.at);
    } catch (error) {
      album.trouble = error.message;
    }
    return album;
  }

  /** Put a picture where its time puts it. */
  async add(/** @type {Print} */ print) {
    this.prints = [print, ...this.prints].sort((one, other) => other.at - one.at);
    await this.#write((store) => store.put(print));
  }

  async remove(/** @type {Print} */ print) {
    this.prints = this.prints.filter((one) => one.id !== print.id);
    await this.#write((store) => store.delete(print.id));
  }

  async #write(change) {
    if (!this.#database) return;
    try {
      await promised(change(this.#store("readwrite")));
    } catch (error) {
      this.trouble = error.name === "QuotaExceededError" ? "this browser's room for it is full" : error.message;
    }
  }

  #store(mode) {
    return this.#database.transaction(STORE, mode).objectStore(STORE);
  }
}

function opening() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
  return request;
}

function promised(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
