"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const table = byId("table");
  const entries = [...table.querySelectorAll(".entry")];
  const heads = [...table.tHead.rows[0].cells];
  const find = byId("find"), status = byId("status"), kind = byId("kind");

  // --- Sorting: text by names, numbers by data-v; what has none stays at the end.
  const value = (entry, column) => {
    const by = heads[column].dataset.by;
    if (by === "name") return entry.dataset.name;
    if (by === "status") return entry.dataset.status;
    const cell = entry.rows[0].cells[column];
    return "v" in cell.dataset ? Number(cell.dataset.v) : null;
  };
  const sort = (column) => {
    const head = heads[column];
    const text = ["name", "status"].includes(head.dataset.by);
    const first = text ? "ascending" : "descending";
    const other = text ? "descending" : "ascending";
    const direction = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const keyed = entries.map((entry) => [value(entry, column), entry]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (text ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
    });
    keyed.forEach(([, entry], place) => { entries[place] = entry; });
    table.append(...entries);
  };
  heads.forEach((head, column) => {
    head.classList.add("sortable");
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(column));
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(column); });
  });

  // --- Filter
  const shown = () => entries.filter((entry) => !entry.hidden);
  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    entries.forEach((entry) => {
      const { search, status: states, kind: own } = entry.dataset;
      entry.hidden = !(words.every((word) => search.includes(word))
        && (!status.value || states.includes("|" + status.value + "|"))
        && (!kind || !kind.value || own === kind.value));
    });
    const count = shown().length;
    byId("count").textContent = count === entries.length ? `all ${count}` : `${count} of ${entries.length}`;
    byId("nothing").hidden = count > 0;
  };
  byId("filter").hidden = false;
  table.classList.add("filtered");
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  [find, status, kind].forEach((each) => each && each.addEventListener("input", filter));
  byId("pictures").addEventListener("change", (event) => {
    table.classList.toggle("no-pictures", !event.target.checked);
  });
  filter();

  // --- One prediction, large: its strip is cut into the images that stand beside each other in it.
  const large = byId("large");
  let current = null;
  const enlarge = (entry) => {
    current = entry;
    byId("title").textContent = entry.dataset.name;
    const panels = byId("panels"), words = byId("words");
    panels.replaceChildren();
    words.replaceChildren();
    const strip = entry.querySelector(".strip");
    if (strip) {
      const image = strip.querySelector("img");
      const names = strip.dataset.names.split("|");
      names.forEach((name, place) => {
        const figure = document.createElement("figure");
        const caption = document.createElement("figcaption");
        const canvas = document.createElement("canvas");
        caption.textContent = name;
        image.decode().then(() => {
          const natural = image.naturalWidth / names.length;
          canvas.width = natural * 3;
          canvas.height = image.naturalHeight * 3;
          const pen = canvas.getContext("2d");
          pen.imageSmoothingQuality = "high";
          pen.drawImage(image, place * natural, 0, natural, image.naturalHeight, 0, 0, canvas.width, canvas.height);
        });
        figure.append(caption, canvas);
        panels.append(figure);
      });
    }
    const numbers = document.createElement("p");
    numbers.textContent = heads.slice(1, -1).map((head, place) => {
      const cell = entry.rows[0].cells[place + 1];
      return "v" in cell.dataset ? `${head.firstChild.textContent.trim()} ${cell.firstChild.textContent.trim()}` : "";
    }).filter(Boolean).join(" · ");
    words.append(numbers);
    entry.querySelectorAll(".badge, .more p").forEach((each) => words.append(each.cloneNode(true), " "));
    if (!large.open) large.showModal();
  };
  const step = (by) => {
    const list = shown();
    const place = list.indexOf(current) + by;
    if (place >= 0 && place < list.length) enlarge(list[place]);
  };
  table.addEventListener("click", (event) => {
    const strip = event.target.closest(".strip");
    if (strip) enlarge(strip.closest(".entry"));
  });
  document.querySelectorAll("circle[data-e]").forEach((dot) => {
    const entry = byId("e" + dot.dataset.e);
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = entry.dataset.name;
    dot.append(title);
    dot.addEventListener("click", () => enlarge(entry));
  });
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  large.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
})();
