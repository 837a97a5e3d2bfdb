//! A strict parser of the Prometheus text format 0.0.4 and of OpenMetrics 1.0.0.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    /// Returns the name, and the labels in alphabetical order.
    pub fn series(&self) -> String {
        let labels: Vec<_> = self.labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        match labels.as_slice() {
            [] => self.name.clone(),
            labels => format!("{}{{{}}}", self.name, labels.join(",")),
        }
    }
}

#[derive(Debug)]
pub struct Family {
    /// The name in `# TYPE`.
    pub name: String,
    /// The type in the Prometheus format, which has no `info`.
    pub kind: String,
    /// The labels that all its samples have, except `le`, in order.
    pub labels: Vec<String>,
    pub samples: Vec<Sample>,
    /// The suffix of the sample names after the family name.
    suffix: &'static str,
}

impl Family {
    /// Returns its name in the Prometheus format.
    pub fn exposed_name(&self) -> String {
        format!("{}{}", self.name, self.suffix)
    }
}

type Lines<'a> = std::iter::Peekable<std::iter::Enumerate<std::str::Split<'a, char>>>;

/// Parses all of `text`.
///
/// # Errors
/// Returns the number of the first line that violates the format, and how.
pub fn parse(text: &str, format: Format) -> Result<Vec<Family>, String> {
    let text = text.strip_suffix('\n').ok_or("no line feed at the end")?;
    let text = match format {
        Format::Prometheus => text,
        Format::OpenMetrics => text.strip_suffix("\n# EOF").ok_or("no # EOF at the end")?,
    };
    let mut lines = text.split('\n').enumerate().peekable();
    let (mut families, mut names, mut series) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    while let Some((number, _)) = lines.peek().copied() {
        let at = |error: String| format!("line {}: {error}", number + 1);
        let family = family(&mut lines, format).map_err(at)?;
        if !names.insert(family.exposed_name()) {
            return Err(at(format!("{} is there twice", family.name)));
        }
        for sample in &family.samples {
            if !series.insert(sample.series()) {
                return Err(at(format!("{} is there twice", sample.series())));
            }
        }
        families.push(family);
    }
    Ok(families)
}

fn family(lines: &mut Lines, format: Format) -> Result<Family, String> {
    let help = lines.next().and_then(|(_, line)| line.strip_prefix("# HELP "));
    let (name, help) = help.and_then(|line| line.split_once(' ')).ok_or("no # HELP")?;
    if help.trim() != help || !help.ends_with('.') || !help.starts_with(char::is_uppercase) {
        return Err(format!("{name}: the help {help:?} is no sentence"));
    }
    let kind = lines.next().and_then(|(_, line)| line.strip_prefix(&*format!("# TYPE {name} ")));
    let kind = kind.ok_or_else(|| format!("{name}: no # TYPE"))?;
    if let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("# UNIT ")) {
        let unit = line.strip_prefix(&*format!("# UNIT {name} ")).ok_or("a UNIT of another")?;
        if format == Format::Prometheus || !name.ends_with(&format!("_{unit}")) {
            return Err(format!("{name}: a UNIT {unit}"));
        }
    }
    let is_open = format == Format::OpenMetrics;
    let (kind, suffix) = match kind {
        "counter" if is_open => ("counter", "_total"),
        "info" if is_open => ("gauge", "_info"),
        "counter" if name.ends_with("_total") => ("counter", ""),
        "gauge" | "histogram" => (kind, ""),
        _ => return Err(format!("{name}: the type is {kind}")),
    };
    if !is_name(name, true) || is_open && (name.ends_with("_total") || name.ends_with("_info")) {
        return Err(format!("{name}: not the name of a {kind}"));
    }
    let mut samples = Vec::new();
    while let Some((_, line)) = lines.next_if(|(_, line)| !line.starts_with("# HELP ")) {
        samples.push(sample(line)?);
    }
    let mut family =
        Family { name: name.into(), kind: kind.into(), labels: vec![], samples, suffix };
    check(&mut family)?;
    Ok(family)
}

fn sample(line: &str) -> Result<Sample, String> {
    let wrong = |what: &str| format!("{line:?}: {what}");
    let end = line.find(['{', ' ']).ok_or_else(|| wrong("no value"))?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            let (label, quoted) = inner.split_once("=\"").ok_or_else(|| wrong("no label"))?;
            let (value, after) = unquote(quoted).ok_or_else(|| wrong("a label's value"))?;
            if !is_name(label, false) || labels.insert(label.to_owned(), value).is_some() {
                return Err(wrong("a label's name"));
            }
            if let Some(after) = after.strip_prefix('}') {
                rest = after;
                break;
            }
            inner = after.strip_prefix(',').ok_or_else(|| wrong("no comma"))?;
        }
    }
    let value = rest.strip_prefix(' ').ok_or_else(|| wrong("no space before the value"))?;
    let is_number = value.starts_with(|c: char| c.is_ascii_digit() || c == '-') || value == "+Inf";
    let value = value.parse().ok().filter(|_| is_number).ok_or_else(|| wrong("no number"))?;
    if !is_name(name, true) {
        return Err(wrong("the name"));
    }
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// Returns the text up to a quotation mark, without escapes, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            (_, c) => value.push(c),
        }
    }
}

fn is_name(name: &str, of_metric: bool) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || of_metric && c == ':')
}

/// Checks that the samples are valid for the type and have the same labels.
fn check(family: &mut Family) -> Result<(), String> {
    let (name, exposed) = (&family.name, family.exposed_name());
    let first = family.samples.first().ok_or_else(|| format!("{name}: no samples"))?;
    let of = |sample: &Sample| -> Vec<String> {
        sample.labels.keys().filter(|label| *label != "le").cloned().collect()
    };
    family.labels = of(first);
    if let Some(other) = family.samples.iter().find(|sample| of(sample) != family.labels) {
        return Err(format!("{}: other labels than {:?}", other.series(), family.labels));
    }
    if family.kind == "histogram" {
        return check_histogram(family);
    }
    for sample in &family.samples {
        let is_counted = family.kind != "counter" || sample.value >= 0.0;
        let is_info = family.suffix != "_info" || sample.value == 1.0;
        let is_plain = !sample.labels.contains_key("le") && sample.value.is_finite();
        if sample.name != exposed || !is_counted || !is_info || !is_plain {
            return Err(format!("{} {} in {name}", sample.series(), sample.value));
        }
    }
    Ok(())
}

fn check_histogram(family: &Family) -> Result<(), String> {
    #[derive(Default)]
    struct Histogram {
        buckets: Vec<(f64, f64)>,
        sum: Option<f64>,
        count: Option<f64>,
    }
    let mut histograms: BTreeMap<_, Histogram> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le");
        let histogram = histograms.entry(labels).or_default();
        let wrong = || format!("{} in a histogram", sample.series());
        match (sample.name.strip_prefix(&family.name).ok_or_else(wrong)?, bound) {
            ("_bucket", Some(bound)) => {
                histogram.buckets.push((bound.parse().map_err(|_| wrong())?, sample.value));
            }
            ("_sum", None) if histogram.sum.is_none() => histogram.sum = Some(sample.value),
            ("_count", None) if histogram.count.is_none() => histogram.count = Some(sample.value),
            _ => return Err(wrong()),
        }
    }
    for (labels, Histogram { buckets, sum, count }) in histograms {
        let ascend = buckets.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
        let last = buckets.last().copied();
        let is_whole = last.is_some_and(|(bound, n)| bound == f64::INFINITY && Some(n) == count);
        if !ascend || !is_whole || sum.is_none_or(|sum| sum < 0.0) {
            return Err(format!("{}{labels:?}: {buckets:?}, {sum:?}, {count:?}", family.name));
        }
    }
    Ok(())
}

#[test]
fn faults_are_found() {
    let good =
        "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\\n\"} 1\na_total{x=\"2\"} 2\n";
    assert_eq!(parse(good, Format::Prometheus).unwrap().len(), 1);
    for (from, to) in [
        ("A.", "a"),
        ("# TYPE", "#TYPE"),
        ("counter", "summary"),
        ("a_total{x=\"2\"}", "b_total{x=\"2\"}"),
        ("x=\"2\"", "x=\"1\\n\""),
        ("x=\"2\"", "y=\"2\""),
        ("x=\"2\"", "x=\"2\","),
        ("\\n", "\\t"),
        ("} 1", "}  1"),
        ("} 1", "} -1"),
        ("} 1", "} one"),
        ("} 2\n", "} 2"),
        ("} 2\n", "} 2\n\n"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        assert!(parse(&bad, Format::Prometheus).is_err(), "{bad}");
    }
    assert!(parse(&format!("{good}{good}"), Format::Prometheus).is_err());
    assert!(parse(good, Format::OpenMetrics).is_err());
    let open = "# HELP a A.\n# TYPE a counter\na_total 1\n# EOF\n";
    assert_eq!(parse(open, Format::OpenMetrics).unwrap().len(), 1);
    assert!(parse(&open.replace("# EOF\n", ""), Format::OpenMetrics).is_err());
    assert!(parse(&open.replace("a_total", "a"), Format::OpenMetrics).is_err());
    let histogram = "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\n\
        h_sum 3\nh_count 2\n";
    assert_eq!(parse(histogram, Format::Prometheus).unwrap().len(), 1);
    for (from, to) in [("} 1", "} 3"), ("h_count 2", "h_count 3"), ("+Inf", "2"), ("h_sum 3\n", "")]
    {
        let bad = histogram.replace(from, to);
        assert!(parse(&bad, Format::Prometheus).is_err(), "{bad}");
    }
}
