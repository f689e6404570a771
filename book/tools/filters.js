// Shows of a page's elements those that the search field and the menus ask for. The choice is kept in the
// address, "#part=classification&q=focal"; an address that names a place, "#some-heading", asks for everything.
{
  const form = document.currentScript.previousElementSibling;
  const fields = [...form.elements].filter((field) => field.name);
  const output = form.querySelector("output");
  const plain = (text) => text.normalize("NFKD").replace(/\p{Mn}/gu, "").toLowerCase();

  const stated = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");

  function start() {
    const items = [...document.querySelectorAll(form.dataset.target)];
    const sections = [...document.querySelectorAll("section")].filter(
      (section) => !section.contains(form) && items.some((item) => section.contains(item)));
    const words = new Map(); // filled by the first search

    function fits(item, field) {
      if (!field.value) return true;
      if (field.name !== "q") return (item.dataset[field.name] ?? "").split(" ").includes(field.value);
      if (!words.has(item)) words.set(item, plain(item.textContent));
      return plain(field.value).split(/\s+/).every((word) => words.get(item).includes(word));
    }

    function show() {
      for (const item of items) item.hidden = !fields.every((field) => fits(item, field));
      // A heading over nothing would only be in the way.
      for (const section of sections) section.hidden = items.every((item) => item.hidden || !section.contains(item));
      output.textContent = `${items.filter((item) => !item.hidden).length} of ${items.length}`;
      form.dispatchEvent(new Event("filtered"));
    }

    function read() {
      for (const field of fields) field.value = stated().get(field.name) ?? "";
      show();
      if (location.hash.includes("=")) form.scrollIntoView();
      else document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
    }

    function write() {
      const state = stated();
      for (const field of fields) field.value ? state.set(field.name, field.value) : state.delete(field.name);
      history.replaceState(null, "", `${state}` ? `#${state}` : location.pathname + location.search);
      show();
    }

    form.hidden = false;
    form.addEventListener("input", write);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(write)); // the fields are empty only after the event
    addEventListener("hashchange", read);
    read();
  }

  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
}
