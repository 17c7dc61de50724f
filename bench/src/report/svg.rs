//! Charts as plain SVG text: dots on a logarithmic axis, and bars. No library, no fonts measured.
//!
//! Colours are those of Okabe and Ito's palette, which people with any colour vision can tell apart;
//! every series has a shape of its own as well.

use std::fmt::Write as _;

/// A chart of ratios: one row per cell, one mark per series, on a logarithmic axis.
#[derive(Clone, Debug)]
pub struct Dots {
    /// Heading.
    pub title: String,
    /// What the axis shows.
    pub axis: String,
    /// Names of the series, in the order of the marks of a row.
    pub series: Vec<String>,
    /// Names of the rows, with one value per series.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
}

/// A chart of one bar per name.
#[derive(Clone, Debug)]
pub struct Bars {
    /// Heading.
    pub title: String,
    /// Names with their values.
    pub rows: Vec<(String, f64)>,
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 78.0;
const ROW: f64 = 22.0;
const COLOURS: [&str; 8] =
    ["#d55e00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#e69f00", "#555555", "#b2a900"];

impl Dots {
    /// The chart's text.
    pub fn svg(&self) -> String {
        let height = TOP + ROW * self.rows.len() as f64 + 40.0;
        let mut out = open(height, &self.title);
        let values = || self.rows.iter().flat_map(|(_, values)| values.iter().flatten().copied());
        let low = values().fold(1.0, f64::min);
        let high = values().fold(1.25, f64::max) * 1.05;
        let x = |value: f64| {
            let share = (value / low).ln() / (high / low).ln();
            LEFT + share * (WIDTH - LEFT - RIGHT)
        };
        let bottom = TOP + ROW * self.rows.len() as f64;
        for tick in ticks(low, high) {
            let at = x(tick);
            let label = format!("{tick}");
            add(
                &mut out,
                format_args!(
                    "<line x1='{at:.1}' y1='{TOP}' x2='{at:.1}' y2='{bottom}' stroke='#ddd'/>\
                 <text x='{at:.1}' y='{:.1}' text-anchor='middle' font-size='11'>{label}</text>",
                    bottom + 16.0,
                ),
            );
        }
        add(
            &mut out,
            format_args!(
                "<text x='{:.1}' y='{:.1}' text-anchor='middle' font-size='11'>{}</text>",
                (LEFT + WIDTH - RIGHT) / 2.0,
                bottom + 33.0,
                escape(&self.axis),
            ),
        );
        for (index, name) in self.series.iter().enumerate() {
            let at = LEFT + (index % 6) as f64 * 112.0;
            let y = 44.0 + (index / 6) as f64 * 16.0;
            mark(&mut out, index, at, y - 4.0);
            add(
                &mut out,
                format_args!(
                    "<text x='{:.1}' y='{y}' font-size='12'>{}</text>",
                    at + 9.0,
                    escape(name),
                ),
            );
        }
        for (row, (name, values)) in self.rows.iter().enumerate() {
            let y = TOP + ROW * (row as f64 + 0.5);
            add(
                &mut out,
                format_args!(
                    "<line x1='{LEFT}' y1='{y}' x2='{:.1}' y2='{y}' stroke='#eee'/>\
                 <text x='{:.1}' y='{:.1}' text-anchor='end' font-size='12'>{}</text>",
                    WIDTH - RIGHT,
                    LEFT - 8.0,
                    y + 4.0,
                    escape(name),
                ),
            );
            // The first series last, so that it lies on top.
            for (index, value) in values.iter().enumerate().rev() {
                if let Some(value) = value {
                    mark(&mut out, index, x(*value), y);
                }
            }
        }
        out.push_str("</svg>\n");
        out
    }
}

impl Bars {
    /// The chart's text.
    pub fn svg(&self) -> String {
        let top = 40.0;
        let height = top + ROW * self.rows.len() as f64 + 14.0;
        let mut out = open(height, &self.title);
        let high = self.rows.iter().map(|(_, value)| *value).fold(1.0, f64::max);
        for (row, (name, value)) in self.rows.iter().enumerate() {
            let y = top + ROW * row as f64;
            let width = value / high * (WIDTH - LEFT - RIGHT - 60.0);
            let colour = COLOURS[row % COLOURS.len()];
            add(
                &mut out,
                format_args!(
                    "<rect x='{LEFT}' y='{:.1}' width='{width:.1}' height='{:.1}' fill='{colour}'/>\
                 <text x='{:.1}' y='{:.1}' text-anchor='end' font-size='12'>{}</text>\
                 <text x='{:.1}' y='{:.1}' font-size='12'>{value:.3}</text>",
                    y + 3.0,
                    ROW - 6.0,
                    LEFT - 8.0,
                    y + 15.0,
                    escape(name),
                    LEFT + width + 6.0,
                    y + 15.0,
                ),
            );
        }
        out.push_str("</svg>\n");
        out
    }
}

fn open(height: f64, title: &str) -> String {
    let mut out = String::new();
    add(
        &mut out,
        format_args!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' \
         font-family='sans-serif'><title>{title}</title>\
         <rect width='{WIDTH}' height='{height}' fill='white'/>\
         <text x='16' y='22' font-size='15' font-weight='bold'>{title}</text>",
            title = escape(title),
        ),
    );
    out
}

fn mark(out: &mut String, series: usize, x: f64, y: f64) {
    let colour = COLOURS[series % COLOURS.len()];
    let (l, r, t, b) = (x - 4.5, x + 4.5, y - 4.5, y + 4.5);
    let shape = match series % 4 {
        0 => format!("<circle cx='{x:.1}' cy='{y:.1}' r='5' fill='{colour}'/>"),
        1 => format!(
            "<rect x='{l:.1}' y='{t:.1}' width='8' height='8' fill='{colour}' fill-opacity='.85'/>"
        ),
        2 => format!(
            "<path d='M{x:.1} {t:.1}L{r:.1} {b:.1}L{l:.1} {b:.1}Z' fill='{colour}' \
             fill-opacity='.85'/>"
        ),
        _ => format!(
            "<path d='M{x:.1} {t:.1}L{r:.1} {y:.1}L{x:.1} {b:.1}L{l:.1} {y:.1}Z' fill='{colour}' \
             fill-opacity='.85'/>"
        ),
    };
    out.push_str(&shape);
    out.push('\n');
}

/// Round values between the ends of a logarithmic axis.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let fine = high / low < 4.0;
    let steps: &[f64] = if fine {
        &[1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    (-3..6)
        .flat_map(|power| {
            steps.iter().map(move |step| (step * 10f64.powi(power) * 1e6).round() / 1e6)
        })
        .filter(|tick| (low..=high).contains(tick))
        .collect()
}

fn add(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes every line");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_a_mark_inside_the_picture() {
        let chart = Dots {
            title: String::from("a < b & c"),
            axis: String::from("ratio"),
            series: vec![String::from("one"), String::from("two")],
            rows: vec![
                (String::from("x"), vec![Some(1.0), Some(12.0)]),
                (String::from("y"), vec![None, Some(0.5)]),
            ],
        };
        let svg = chart.svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b &amp; c") && !svg.contains("a < b"));
        // One circle in the legend and one value; two squares of values, one in the legend.
        assert_eq!(svg.matches("<circle").count(), 2);
        assert_eq!(svg.matches("fill-opacity").count(), 3);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn bars_carry_their_values() {
        let svg =
            Bars { title: "t".into(), rows: vec![("a".into(), 1.0), ("b".into(), 2.5)] }.svg();
        assert!(svg.contains("2.500") && svg.matches("<rect").count() == 3);
    }

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks(1.0, 12.0), [1.0, 2.0, 5.0, 10.0]);
        assert_eq!(ticks(1.0, 1.5), [1.0, 1.2, 1.4]);
    }
}
