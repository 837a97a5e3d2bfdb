//! Metrics of the process itself, read from `/proc` at each scrape. Where there is none, there are
//! no such metrics.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Reads the process metrics that Prometheus client libraries have in common, under the same names.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut metrics = Encoder(encoder);
        if let Some(stat) =
            fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(parse_stat)
        {
            let ticks = clock_ticks_per_second() as f64;
            metrics.put(
                ("process_cpu", Some(Unit::Seconds)),
                "Total user and system CPU time spent in seconds.",
                &ConstCounter::new(stat.cpu_ticks as f64 / ticks),
            )?;
            metrics.gauge(
                ("process_resident_memory", Some(Unit::Bytes)),
                "Resident memory size in bytes.",
                stat.resident_pages.saturating_mul(page_size() as u64),
            )?;
            metrics.gauge(
                ("process_virtual_memory", Some(Unit::Bytes)),
                "Virtual memory size in bytes.",
                stat.virtual_bytes,
            )?;
            metrics.gauge(
                ("process_threads", None),
                "Number of OS threads in the process.",
                stat.threads,
            )?;
            let boot = fs::read_to_string("/proc/stat").ok().as_deref().and_then(parse_boot_time);
            if let Some(boot) = boot {
                metrics.put(
                    ("process_start_time", Some(Unit::Seconds)),
                    "Start time of the process since unix epoch in seconds.",
                    &ConstGauge::new(boot as f64 + stat.start_ticks as f64 / ticks),
                )?;
            }
        }
        if let Some(open) = open_descriptors() {
            metrics.gauge(("process_open_fds", None), "Number of open file descriptors.", open)?;
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            metrics.gauge(
                ("process_max_fds", None),
                "Maximum number of open file descriptors.",
                most,
            )?;
        }
        Ok(())
    }
}

struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn put(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        metric: &dyn EncodeMetric,
    ) -> fmt::Result {
        let kind = metric.metric_type();
        metric.encode(self.0.encode_descriptor(name, help, unit.as_ref(), kind)?)
    }

    fn gauge(&mut self, named: (&str, Option<Unit>), help: &str, value: u64) -> fmt::Result {
        self.put(named, help, &ConstGauge::new(value))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

/// Parses `/proc/self/stat`, see proc_pid_stat(5). The second field, the name, may contain
/// anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Numbered like in the manual, where the name is 2.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)?.checked_add(field(15)?)?,
        threads: field(20)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

/// Parses when the system was started from `/proc/stat`, in seconds since 1970.
fn parse_boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Returns the number of open file descriptors. Since Linux 6.2 it is the size of the directory,
/// which spares listing tens of thousands of connections.
fn open_descriptors() -> Option<u64> {
    const FDS: &str = "/proc/self/fd";
    match fs::metadata(FDS).ok()?.len() {
        // One is of the listing itself.
        0 => Some((fs::read_dir(FDS).ok()?.count() as u64).saturating_sub(1)),
        open => Some(open),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_anything() {
        let text =
            "7 (a) R 1 (x) S 1 7 7 0 -1 4194304 9 0 0 0 250 50 0 0 20 0 12 0 3000 65536 17 1 0\n";
        let stat = Stat {
            cpu_ticks: 300,
            threads: 12,
            start_ticks: 3000,
            virtual_bytes: 65536,
            resident_pages: 17,
        };
        assert_eq!(parse_stat(text), Some(stat));
        assert_eq!(parse_stat("7 (a) S 1 7"), None);
        assert_eq!(
            parse_boot_time("cpu 1 2\nbtime 1700000000\nprocesses 5\n"),
            Some(1_700_000_000)
        );
        assert_eq!(parse_boot_time("cpu 1 2\n"), None);
    }
}
