//! The formats of metrics, and which one a client gets.

/// A format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposition {
    /// The Prometheus text format 0.0.4, which every client understands.
    PrometheusText,
    /// OpenMetrics 1.0.0, only for clients that ask for it.
    OpenMetrics,
}

impl Exposition {
    /// Returns the `Content-Type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Exposition::PrometheusText => {
                prometheus_client::encoding::prometheus_text::CONTENT_TYPE
            }
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Chooses the format that the values of the `Accept` headers prefer: of equal preference, the
    /// one named first. The text format is the default, even if `accept` excludes it.
    pub(crate) fn preferred<'a>(accept: impl IntoIterator<Item = &'a str>) -> Exposition {
        let mut preferred = (Exposition::PrometheusText, 0.0);
        for range in accept.into_iter().flat_map(|value| value.split(',')) {
            if let Some((exposition, quality)) = parse(range)
                && quality > preferred.1
            {
                preferred = (exposition, quality);
            }
        }
        preferred.0
    }
}

/// Parses a media range. `None` if no format matches it.
fn parse(range: &str) -> Option<(Exposition, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next()?;
    let (mut version, mut quality) = (None, 1.0);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        if name.eq_ignore_ascii_case("version") {
            version = Some(value);
        } else if name.eq_ignore_ascii_case("q") {
            quality = value.parse().ok().filter(|quality| (0.0..=1.0).contains(quality))?;
        }
    }
    let is = |name: &str| media_type.eq_ignore_ascii_case(name);
    let exposition = if is("application/openmetrics-text") {
        matches!(version, None | Some("1.0.0")).then_some(Exposition::OpenMetrics)
    } else if is("text/plain") {
        matches!(version, None | Some("0.0.4")).then_some(Exposition::PrometheusText)
    } else {
        (is("text/*") || is("*/*")).then_some(Exposition::PrometheusText)
    };
    Some((exposition?, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_prefer_it() {
        use Exposition::{OpenMetrics, PrometheusText};
        let prometheus = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            (&[][..], PrometheusText),
            (&["*/*"], PrometheusText),
            (&[""], PrometheusText),
            (&["text/html, application/xml;q=0.9, */*;q=0.8"], PrometheusText),
            (&["application/json"], PrometheusText),
            (&[prometheus], OpenMetrics),
            (&["application/openmetrics-text"], OpenMetrics),
            (&["Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8"], OpenMetrics),
            (&["application/openmetrics-text;version=0.0.1,text/plain;q=0.1"], PrometheusText),
            (&["application/openmetrics-text;version=2.0.0"], PrometheusText),
            (&["application/openmetrics-text;q=0"], PrometheusText),
            (&["application/openmetrics-text;q=0.4, text/plain;q=0.5"], PrometheusText),
            (&["text/plain;q=0.4", "application/openmetrics-text;q=0.5"], OpenMetrics),
            (&["text/plain", "application/openmetrics-text"], PrometheusText),
            (&["application/openmetrics-text;q=x"], PrometheusText),
            (&["application/openmetrics-text;q=7, text/plain;q=0.1"], PrometheusText),
        ] {
            assert_eq!(Exposition::preferred(accept.iter().copied()), expected, "{accept:?}");
        }
    }
}
