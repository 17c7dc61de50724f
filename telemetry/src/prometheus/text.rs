//! Prometheus text taken apart into families, merged, and put in order.
//!
//! The library renders families in the order of a hash table. Sorted output lets a reader find a
//! series and compare two scrapes. Counters and gauges are sorted by name and labels, numbers
//! inside by their value; histograms and summaries keep the order of their lines, which the format
//! prescribes within one label set.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// Families by name.
#[derive(Debug, Default)]
pub(super) struct Families(BTreeMap<String, Family>);

/// One family: comment lines, then samples.
#[derive(Debug, Default)]
struct Family {
    help: Option<String>,
    kind: Option<String>,
    samples: Vec<String>,
}

impl Families {
    /// Takes text apart. Expects what an exporter renders: the comments of a family before its
    /// samples.
    pub(super) fn parse(text: &str) -> Self {
        let mut families = Self::default();
        let mut current = String::new();
        for line in text.lines().filter(|l| !l.is_empty()) {
            if let Some((keyword, rest)) = comment(line) {
                current = rest.split(' ').next().unwrap_or_default().to_owned();
                let family = families.0.entry(current.clone()).or_default();
                match keyword {
                    "HELP" => family.help = Some(line.to_owned()),
                    _ => family.kind = Some(line.to_owned()),
                }
            } else {
                families.0.entry(current.clone()).or_default().samples.push(line.to_owned());
            }
        }
        families
    }

    /// Adds the families of `other`. Of a family that both have, the comments and the samples here
    /// win: a sample given twice would make Prometheus refuse the whole scrape.
    pub(super) fn merge(&mut self, other: Self) {
        for (name, theirs) in other.0 {
            let ours = self.0.entry(name).or_default();
            let new = theirs
                .samples
                .into_iter()
                .filter(|l| !ours.samples.iter().any(|o| key(o) == key(l)));
            let new: Vec<_> = new.collect();
            ours.samples.extend(new);
            ours.help = ours.help.take().or(theirs.help);
            ours.kind = ours.kind.take().or(theirs.kind);
        }
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for family in self.0.values() {
            for comment in [&family.help, &family.kind].into_iter().flatten() {
                writeln!(f, "{comment}")?;
            }
            let mut samples: Vec<_> = family.samples.iter().map(String::as_str).collect();
            if family.is_flat() {
                samples.sort_by(|a, b| natural(key(a), key(b)));
            }
            for sample in samples {
                writeln!(f, "{sample}")?;
            }
        }
        Ok(())
    }
}

impl Family {
    /// Whether every sample is a figure by itself.
    fn is_flat(&self) -> bool {
        self.kind.as_ref().is_none_or(|k| k.ends_with(" counter") || k.ends_with(" gauge"))
    }
}

/// `HELP` or `TYPE`, and what follows it.
fn comment(line: &str) -> Option<(&str, &str)> {
    let (keyword, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    matches!(keyword, "HELP" | "TYPE").then_some((keyword, rest))
}

/// Name and labels of a sample: all before its value. Values hold no space, and no timestamps are
/// rendered.
fn key(sample: &str) -> &str {
    sample.rsplit_once(' ').map_or(sample, |(key, _)| key)
}

/// Order of two strings in which runs of digits compare as numbers: class="64" comes before
/// class="128".
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (x, y) = (digits(a), digits(b));
        let order = if x > 0 && y > 0 {
            let (m, n) = (strip_zeros(&a[..x]), strip_zeros(&b[..y]));
            (a, b) = (&a[x..], &b[y..]);
            m.len().cmp(&n.len()).then_with(|| m.cmp(n))
        } else {
            match (a.split_first(), b.split_first()) {
                (Some((x, rest_a)), Some((y, rest_b))) => {
                    (a, b) = (rest_a, rest_b);
                    x.cmp(y)
                }
                (x, y) => return x.is_some().cmp(&y.is_some()),
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn digits(s: &[u8]) -> usize {
    s.iter().take_while(|c| c.is_ascii_digit()).count()
}

fn strip_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&c| c == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_by_value() {
        let mut lines = ["a{class=\"1024\"}", "a{class=\"64\"}", "a", "a{class=\"128\"}"];
        lines.sort_by(|a, b| natural(a, b));
        assert_eq!(lines, ["a", "a{class=\"64\"}", "a{class=\"128\"}", "a{class=\"1024\"}"]);
        assert_eq!(natural("a07", "a7"), Ordering::Equal);
        assert_eq!(natural("a10", "a9"), Ordering::Greater);
    }

    #[test]
    fn families_come_sorted_and_histograms_keep_their_lines() {
        let text = "# HELP z last\n# TYPE z gauge\nz{class=\"128\"} 1\nz{class=\"16\"} 2\n\n\
                    # TYPE h histogram\nh_bucket{le=\"8\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_count 2\n";
        assert_eq!(
            Families::parse(text).to_string(),
            "# TYPE h histogram\nh_bucket{le=\"8\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_count 2\n\
             # HELP z last\n# TYPE z gauge\nz{class=\"16\"} 2\nz{class=\"128\"} 1\n"
        );
    }

    #[test]
    fn a_sample_given_twice_is_rendered_once() {
        let mut ours = Families::parse("# TYPE t counter\nt{a=\"x y\"} 1.5\n");
        ours.merge(Families::parse("# TYPE t gauge\nt{a=\"x y\"} 1\nt{a=\"z\"} 7\n"));
        assert_eq!(ours.to_string(), "# TYPE t counter\nt{a=\"x y\"} 1.5\nt{a=\"z\"} 7\n");
    }
}
