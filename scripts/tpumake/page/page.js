// What a point of a plot tells, where the mouse, a finger or the arrow keys are. All of it is text:
// names of layers are other people's.
"use strict";
(() => {
  const tip = document.getElementById("tip");
  const said = document.getElementById("said");

  const marksOf = (plot) =>
    [...plot.querySelectorAll("svg")]
      .filter((svg) => svg.getBoundingClientRect().width > 0)
      .flatMap((svg) => [...svg.querySelectorAll(".role-mark [aria-label]")]);

  const middle = (mark) => {
    const box = mark.getBoundingClientRect();
    return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
  };

  let now = null;
  const leave = () => {
    if (now) now.classList.remove("now");
    now = null;
    tip.hidden = true;
  };

  const show = (mark) => {
    if (mark === now) return;
    leave();
    now = mark;
    mark.classList.add("now");
    const [name, ...rest] = mark.getAttribute("aria-label").split(" · ");
    const head = document.createElement("b");
    head.textContent = name;
    tip.replaceChildren(head, document.createTextNode(rest.join(" · ")));
    tip.hidden = false;
    place();
  };

  const place = () => {
    if (!now) return;
    const at = middle(now);
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(at.x - box.width / 2, 4), innerWidth - box.width - 4);
    const above = at.y - box.height - 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${above < 4 ? at.y + 18 : above}px`;
  };

  for (const plot of document.querySelectorAll(".plot")) {
    const near = (event) => {
      let best = null;
      let least = Infinity;
      for (const mark of marksOf(plot)) {
        const at = middle(mark);
        // Along the network it is the place that counts.
        const far = Math.abs(at.x - event.clientX) + 0.15 * Math.abs(at.y - event.clientY);
        if (far < least) [best, least] = [mark, far];
      }
      const bars = plot.dataset.marks === "bars";
      const hit = bars ? event.target.closest(".role-mark [aria-label]") : best;
      if (hit) show(hit);
      else leave();
    };
    plot.addEventListener("pointermove", near);
    plot.addEventListener("pointerdown", near);
    // A finger that is lifted has left, too; what it touched stays until it touches something else.
    plot.addEventListener("pointerleave", (event) => event.pointerType === "touch" || leave());
    plot.addEventListener("blur", leave);
    plot.addEventListener("keydown", (event) => {
      const marks = marksOf(plot);
      const at = marks.indexOf(now);
      const to = {
        ArrowRight: at + 1, ArrowLeft: at < 0 ? marks.length - 1 : at - 1, PageDown: at + 10, PageUp: at - 10,
        Home: 0, End: marks.length - 1,
      }[event.key];
      if (event.key === "Escape") leave();
      if (to === undefined || !marks.length) return;
      event.preventDefault();
      show(marks[Math.min(Math.max(to, 0), marks.length - 1)]);
      said.textContent = now.getAttribute("aria-label");
    });
  }
  addEventListener("pointerdown", (event) => event.target.closest(".plot") || leave());
  addEventListener("scroll", place, { passive: true, capture: true });

  // Paper can't be unfolded.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of opened) each.open = false;
  });
})();
