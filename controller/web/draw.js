// Waveforms on a canvas, in the page's own colours.

function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Bars of both sides, the newest at the right: the far end above the middle, ours below.
export function levels(canvas, found, most) {
  const { pen, width, height } = prepare(canvas);
  const step = width / most;
  const middle = height / 2;
  pen.fillStyle = colour("line");
  pen.fillRect(0, middle - 0.5, width, 1);
  for (const [side, name, up] of [[found.far, "far", true], [found.ours, "ours", false]]) {
    pen.fillStyle = colour(name);
    const shown = side.slice(-most);
    shown.forEach((level, at) => {
      const size = (Math.max(0, level - 27) / 100) * (middle - 1);
      const x = width - (shown.length - at) * step;
      pen.fillRect(x, up ? middle - size : middle, Math.max(step - 0.5, 0.5), size);
    });
  }
}

// A whole recording: theirs above, ours below, and what the ear took for speech behind them.
export function recording(canvas, buffer, report, at) {
  const { pen, width, height } = prepare(canvas);
  const seconds = buffer.duration || 1;
  const half = height / 2;
  [["far", 0, report && report.sides.theirs], ["ours", 1, report && report.sides.ours]].forEach(
    ([name, channel, side], row) => {
      const middle = half * row + half / 2;
      pen.fillStyle = colour(name);
      if (side) {
        pen.globalAlpha = 0.16;
        for (const each of side.segments) {
          pen.fillRect((each.start / seconds) * width, half * row, ((each.end - each.start) / seconds) * width, half);
        }
        pen.globalAlpha = 1;
      }
      const samples = buffer.getChannelData(channel);
      const step = samples.length / width;
      for (let x = 0; x < width; x += 1) {
        let peak = 0;
        const end = Math.min(samples.length, Math.ceil((x + 1) * step));
        for (let n = Math.floor(x * step); n < end; n += 1) peak = Math.max(peak, Math.abs(samples[n]));
        const size = Math.max(0.5, Math.sqrt(peak) * (half / 2 - 2));
        pen.fillRect(x, middle - size, 1, 2 * size);
      }
    },
  );
  pen.fillStyle = colour("bad");
  pen.fillRect((at / seconds) * width, 0, 1.5, height);
}
