for (const box of document.querySelectorAll(".swipe")) {
  const slider = box.querySelector("input");
  const move = () => box.style.setProperty("--at", `${slider.value}%`);
  slider.addEventListener("input", move);
  move();
}
