// Images that go with a message: as data URLs inside the request, since nothing of ours fetches an address.

import { bytes } from "./figures.js";

const TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif"];
const COUNT_MAX = 8;

export class Images {
  // `refuse(words)` says why something was not taken; `changed()` that there are others now.
  constructor(place, bytesMax, { refuse, changed }) {
    this.place = place;
    this.bytesMax = bytesMax;
    this.refuse = refuse;
    this.changed = changed;
    this.list = [];
  }

  async add(files) {
    for (const file of files) {
      if (!TYPES.includes(file.type)) {
        this.refuse(`${file.name || "This file"} is not taken: an image is PNG, JPEG, WebP or GIF.`);
      } else if (this.list.length >= COUNT_MAX) {
        this.refuse(`A message takes at most ${COUNT_MAX} images.`);
      } else if (this.list.reduce((sum, one) => sum + one.size, file.size) > this.bytesMax) {
        this.refuse(`${file.name || "This image"} is too large: all images of a message together have at most ${bytes(this.bytesMax)}.`);
      } else {
        this.list.push({ name: file.name || "image", size: file.size, url: await dataUrl(file) });
      }
    }
    this.draw();
  }

  take() {
    const taken = this.list;
    this.list = [];
    this.draw();
    return taken;
  }

  put(images) {
    this.list = [...images];
    this.draw();
  }

  draw() {
    this.place.replaceChildren(
      ...this.list.map((image, at) => {
        const node = preview(image);
        const remove = document.getElementById("t-remove").content.firstElementChild.cloneNode(true);
        remove.setAttribute("aria-label", `Remove ${image.name}`);
        remove.addEventListener("click", () => {
          this.list.splice(at, 1);
          this.draw();
        });
        node.append(remove);
        return node;
      }),
    );
    const told = document.createElement("p");
    told.className = "hint";
    told.textContent = `${bytes(this.list.reduce((sum, one) => sum + one.size, 0))} of at most ${bytes(this.bytesMax)} together`;
    this.place.append(told);
    this.place.hidden = !this.list.length;
    this.changed();
  }
}

export function preview(image) {
  const node = document.createElement("figure");
  const picture = document.createElement("img");
  picture.src = image.url;
  picture.alt = image.name;
  const told = document.createElement("figcaption");
  told.textContent = `${image.name}, ${bytes(image.size)}`;
  node.append(picture, told);
  return node;
}

function dataUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => done(reader.result));
    reader.addEventListener("error", () => failed(reader.error));
    reader.readAsDataURL(file);
  });
}
