"use strict";
{
  const players = [...document.querySelectorAll("audio")];
  for (const player of players) {
    player.addEventListener("play", () => {
      for (const other of players) if (other !== player) other.pause();
    });
  }
}

// Buttons of a legend choose cards by the data-* attribute that both have.
for (const legend of document.querySelectorAll(".legend")) {
  const filters = legend.dataset.filters;
  const buttons = [...legend.querySelectorAll("button")];
  const cards = [...document.querySelectorAll(".card")];
  const all = document.querySelector(".all");
  const none = document.querySelector(".none");
  const status = document.querySelector(".status");

  const show = () => {
    const chosen = new Set(
      buttons.filter((button) => button.getAttribute("aria-pressed") === "true").map((button) => button.dataset[filters]),
    );
    let shown = 0;
    for (const card of cards) {
      card.hidden = chosen.size > 0 && !chosen.has(card.dataset[filters]);
      if (card.hidden) card.querySelector("audio").pause();
      else shown += 1;
    }
    all.hidden = chosen.size === 0;
    none.hidden = shown > 0;
    status.textContent = chosen.size ? `${shown} of ${cards.length} samples` : `${cards.length} samples`;
  };

  for (const button of buttons) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      show();
    });
  }
  all.addEventListener("click", () => {
    for (const button of buttons) button.setAttribute("aria-pressed", "false");
    show();
    buttons[0].focus();
  });
}
