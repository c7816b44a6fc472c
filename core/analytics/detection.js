// One test folder at a time, and a model that stands out: all charts and tables of a dataset follow what is
// chosen. Without this script the tables of all folders stand one after the other.
for (const block of document.querySelectorAll(".by-folder")) {
  const all = (selector) => [...block.querySelectorAll(selector)];
  const select = block.querySelector("select");
  const views = [];
  let model = -1;

  const follow = (view) =>
    view.signal("folder", Number(select.value)).signal("model", model).runAsync();
  const update = () => {
    views.forEach(follow);
    all("[data-folder]").forEach((part) => (part.hidden = part.dataset.folder !== select.value));
    all("button").forEach((button) =>
      button.setAttribute("aria-pressed", String(Number(button.value) === model)),
    );
    all("[data-model]").forEach((part) =>
      part.classList.toggle("faded", model >= 0 && Number(part.dataset.model) !== model),
    );
  };

  block.querySelector(".controls").hidden = false;
  block.addEventListener("drawn", ({ detail: view }) => {
    views.push(view);
    follow(view);
  });
  select.addEventListener("change", update);
  all("button").forEach((button) =>
    button.addEventListener("click", () => {
      model = Number(button.value) === model ? -1 : Number(button.value);
      update();
    }),
  );
  update();
}
