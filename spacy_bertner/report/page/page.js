"use strict";
// The filters of the error list. Labels are compared by their place among the labels, -1 for none.
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const items = Array.from(document.querySelectorAll("#error-list > li"));
  const shown = document.getElementById("shown");
  const { kind, gold, predicted, words } = form.elements;

  const apply = () => {
    const wanted = words.value.trim().toLocaleLowerCase();
    let groups = 0, errors = 0;
    for (const item of items) {
      const { dataset } = item;
      item.hidden = !(
        (!kind.value || dataset.kind === kind.value) &&
        (!gold.value || dataset.gold === gold.value) &&
        (!predicted.value || dataset.predicted === predicted.value) &&
        (!wanted || item.textContent.toLocaleLowerCase().includes(wanted))
      );
      if (!item.hidden) {
        groups += 1;
        errors += Number(dataset.count);
      }
    }
    shown.textContent = `${errors} of ${shown.dataset.total} errors, ${groups} different`;
  };

  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  for (const cell of document.querySelectorAll(".matrix button")) {
    cell.addEventListener("click", () => {
      form.reset();
      gold.value = cell.dataset.gold;
      predicted.value = cell.dataset.predicted;
      apply();
      document.getElementById("errors").scrollIntoView();
      gold.focus({ preventScroll: true });
    });
  }
  apply();
})();
