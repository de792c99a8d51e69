//! A loss curve as SVG: title, axes with round ticks, a grid, a legend, and one line a series. It has its own light
//! background and needs no script or font file.

use std::fmt::Write;
use std::path::Path;

use crate::error::Result;
use crate::format::AtomicFile;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 60.0;

/// Colours that are told apart by eyes of every kind (Okabe and Ito 2008).
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/// One line of the plot.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// `(step, loss)`; a point that is not finite, or beyond 1e100, interrupts the line.
    pub points: Vec<(f64, f64)>,
}

/// A plot of losses over steps.
#[derive(Clone, PartialEq, Debug)]
pub struct Curve {
    /// Above the plot.
    pub title: String,
    /// Under the horizontal axis.
    pub x_label: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// Drawn in order, later over earlier.
    pub series: Vec<Series>,
}

/// The range of an axis, and its ticks.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Curve {
    /// Training and validation loss over steps.
    pub fn losses(title: &str, train: Vec<(f64, f64)>, validation: Vec<(f64, f64)>) -> Curve {
        let series = [("train", train), ("validation", validation)]
            .map(|(name, points)| Series { name: name.to_string(), points })
            .into();
        Curve {
            title: title.to_string(),
            x_label: "step".into(),
            y_label: "loss (nats per token)".into(),
            series,
        }
    }

    /// The drawing, an SVG document of 800 x 480.
    pub fn to_svg(&self) -> String {
        let finite = || self.series.iter().flat_map(|s| &s.points).filter(|p| drawable(p));
        let x = Axis::over(finite().map(|p| p.0), 8);
        let y = Axis::over(finite().map(|p| p.1), 6);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\" font-family=\"system-ui, Helvetica, Arial, sans-serif\" font-size=\"13\" \
             fill=\"#333333\">\n<title>{}</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n",
            escape(&self.title)
        );
        self.draw_axes(&mut svg, &x, &y);
        for (i, series) in self.series.iter().enumerate() {
            draw_line(&mut svg, series, COLOURS[i % COLOURS.len()], &x, &y);
        }
        self.draw_legend(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    /// Writes the drawing, atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_svg(&self, path: impl AsRef<Path>) -> Result<()> {
        let svg = self.to_svg();
        let mut file = AtomicFile::create(path.as_ref(), svg.len() as u64)?;
        file.write(svg.as_bytes())?;
        file.commit()
    }

    fn draw_axes(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in y.ticks() {
            let at = place_y(y, tick);
            line(svg, [LEFT, at, right, at], "#e3e3e3");
            text(svg, LEFT - 8.0, at + 4.5, "text-anchor=\"end\"", &y.label(tick));
        }
        for tick in x.ticks() {
            let at = place_x(x, tick);
            line(svg, [at, bottom, at, bottom + 5.0], "#666666");
            text(svg, at, bottom + 20.0, "text-anchor=\"middle\"", &x.label(tick));
        }
        line(svg, [LEFT, bottom, right, bottom], "#666666");
        line(svg, [LEFT, TOP, LEFT, bottom], "#666666");
        let middle = "text-anchor=\"middle\"";
        text(svg, (LEFT + right) / 2.0, HEIGHT - 16.0, middle, &self.x_label);
        let (cx, cy) = (20.0, (TOP + bottom) / 2.0);
        text(svg, cx, cy, &format!("{middle} transform=\"rotate(-90 {cx} {cy})\""), &self.y_label);
        text(svg, LEFT, 30.0, "font-size=\"17\" font-weight=\"600\"", &self.title);
    }

    /// In the top right corner, where a falling curve leaves room.
    fn draw_legend(&self, svg: &mut String) {
        let longest = self.series.iter().map(|s| s.name.chars().count()).max().unwrap_or(0);
        let width = 46.0 + 7.5 * longest as f64;
        let (left, top) = (WIDTH - RIGHT - width - 8.0, TOP + 8.0);
        let height = 12.0 + 20.0 * self.series.len() as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"4\" \
             fill=\"#ffffff\" fill-opacity=\"0.85\" stroke=\"#cccccc\"/>"
        );
        for (i, series) in self.series.iter().enumerate() {
            let y = top + 16.0 + 20.0 * i as f64;
            let _ = writeln!(
                svg,
                "<path d=\"M{:.1} {y:.1}h22\" stroke=\"{}\" stroke-width=\"2.5\"/>",
                left + 8.0,
                COLOURS[i % COLOURS.len()]
            );
            text(svg, left + 38.0, y + 4.5, "", &series.name);
        }
    }
}

impl Axis {
    /// Ticks at 1, 2 or 5 times a power of ten, about `wanted` of them, and the range rounded out to them.
    fn over(values: impl Iterator<Item = f64>, wanted: u32) -> Axis {
        let (mut low, mut high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // Far from zero, steps that no longer differ in print would only show rounding.
        let least = (low.abs().max(high.abs()) * 1e-6).max(f64::MIN_POSITIVE * 1e20);
        if high - low < least {
            let middle = (low + high) / 2.0;
            let half = if middle == 0.0 { 0.5 } else { middle.abs() * 0.05 };
            (low, high) = (middle - half, middle + half);
        }
        let raw = (high - low) / f64::from(wanted);
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0].into_iter().map(|m| m * power).find(|&s| s >= raw).unwrap_or(10.0 * power);
        Axis { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (first, step) = ((self.low / self.step).round(), self.step);
        let count = (self.high / step).round() - first;
        (0..=count as u32).map(move |i| (first + f64::from(i)) * step)
    }

    /// From 0 to 1 along the axis.
    fn place(&self, v: f64) -> f64 {
        (v - self.low) / (self.high - self.low)
    }

    /// As many decimals as the step has; powers of ten beyond a million or below a ten-thousandth.
    fn label(&self, v: f64) -> String {
        if self.high.abs().max(self.low.abs()) >= 1e7 || self.step < 1e-4 {
            return if v == 0.0 { "0".to_string() } else { format!("{v:.2e}") };
        }
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        format!("{v:.decimals$}")
    }
}

/// Whether arithmetic on the point stays finite.
fn drawable(p: &(f64, f64)) -> bool {
    p.0.abs() < 1e100 && p.1.abs() < 1e100
}

fn place_x(x: &Axis, v: f64) -> f64 {
    LEFT + x.place(v) * (WIDTH - LEFT - RIGHT)
}

fn place_y(y: &Axis, v: f64) -> f64 {
    HEIGHT - BOTTOM - y.place(v) * (HEIGHT - TOP - BOTTOM)
}

fn draw_line(svg: &mut String, series: &Series, colour: &str, x: &Axis, y: &Axis) {
    let places = |&(a, b): &(f64, f64)| drawable(&(a, b)).then(|| (place_x(x, a), place_y(y, b)));
    let mut path = String::new();
    for run in series.points.split(|p| places(p).is_none()).filter(|run| !run.is_empty()) {
        for (i, (px, py)) in thin(run.iter().filter_map(places)).into_iter().enumerate() {
            let _ = write!(path, "{}{px:.1} {py:.1}", if i == 0 { "M" } else { "L" });
        }
        // A point alone: a line of no length, drawn as a dot by its round caps.
        path.push_str(if run.len() == 1 { "h0" } else { "" });
    }
    if !path.is_empty() {
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.75\" stroke-linejoin=\"round\" \
             stroke-linecap=\"round\"/>"
        );
    }
}

/// At most four points a pixel column, its first, lowest, highest and last: a long run draws the same, in less space.
fn thin(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = points.collect();
    let mut kept = Vec::new();
    for column in points.chunk_by(|a, b| a.0.floor() == b.0.floor()) {
        let by_y = |&i: &usize, &j: &usize| column[i].1.total_cmp(&column[j].1);
        let ends = [0, column.len() - 1];
        let extremes = [(0..column.len()).min_by(by_y), (0..column.len()).max_by(by_y)];
        let mut at: Vec<usize> = ends.into_iter().chain(extremes.into_iter().flatten()).collect();
        at.sort_unstable();
        at.dedup();
        kept.extend(at.into_iter().map(|i| column[i]));
    }
    kept
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4], colour: &str) {
    let _ = writeln!(svg, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"{colour}\"/>");
}

fn text(svg: &mut String, x: f64, y: f64, attributes: &str, content: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{}</text>", escape(content));
}

/// Text as XML allows it: markup escaped, control characters replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
