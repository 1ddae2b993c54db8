// uPlot, loaded when there is something to draw.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export interface Line {
  name: string;
  /** Of a custom property. */
  colour: string;
  values: (number | null)[];
  bars?: boolean;
}
export interface Wanted {
  /** Seconds. */
  at: number[];
  lines: Line[];
  format(value: number): string;
  /** Which point the pointer is at. */
  hover(index: number | undefined): void;
}

/** The time of day, or the day where a new one begins. */
function clockOf(seconds: number, before: number | undefined): string {
  const time = new Date(seconds * 1_000);
  const isNewDay = before !== undefined && new Date(before * 1_000).getDate() !== time.getDate();
  const two = (value: number) => String(value).padStart(2, "0");
  const day = time.toLocaleDateString("en", { month: "short", day: "numeric" });
  return isNewDay && time.getHours() === 0 ? day : `${two(time.getHours())}:${two(time.getMinutes())}`;
}

export function draw(host: HTMLElement, wanted: Wanted): { move(index: number): void; destroy(): void } {
  // The browser chooses between light and dark where a colour is used, not in the property itself.
  const colour = (name: string) => {
    host.style.color = `var(${name})`;
    const used = getComputedStyle(host).color;
    host.style.color = "";
    return used;
  };
  const axis = { stroke: colour("--soft"), font: "11px system-ui, sans-serif", ticks: { show: false } };
  const bars = uPlot.paths.bars?.({ size: [0.8, 40] });
  const series = wanted.lines.map((line) => ({
    label: line.name,
    stroke: colour(line.colour),
    width: 1.5,
    points: { show: true, size: 5, width: 0, fill: colour(line.colour) },
    ...(line.bars && bars ? { paths: bars, fill: colour(line.colour), width: 0, points: { show: false } } : {}),
  }));
  const options: uPlot.Options = {
    width: Math.max(host.clientWidth, 200),
    height: 180,
    padding: [8, 18, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: { x: { time: true }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] } },
    axes: [
      { ...axis, size: 34, grid: { show: false }, values: (_, times) => times.map((time, nth) => clockOf(time, times[nth - 1])) },
      {
        ...axis,
        size: 62,
        grid: { stroke: colour("--line"), width: 1 },
        values: (_, values) => values.map((value) => wanted.format(value)),
      },
    ],
    series: [{}, ...series],
    hooks: { setCursor: [(plot) => wanted.hover(plot.cursor.idx ?? undefined)] },
  };
  const plot = new uPlot(options, [wanted.at, ...wanted.lines.map((line) => line.values)], host);
  const watch = new ResizeObserver(() => plot.setSize({ width: Math.max(host.clientWidth, 200), height: 180 }));
  watch.observe(host);
  return {
    move: (index) => plot.setCursor({ left: plot.valToPos(wanted.at[index] ?? 0, "x"), top: 0 }),
    destroy: () => {
      watch.disconnect();
      plot.destroy();
    },
  };
}
