//! Runs this program under callgrind, and evaluates the profiles.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::COUNTED;

/// The function whose instructions are counted, without those of other threads.
const FUNCTION: &str = "instructions::counter::counted";
/// The allocation functions of jemalloc and of the C library.
const ALLOCATORS: [&str; 6] =
    ["malloc", "mallocx", "calloc", "realloc", "rallocx", "posix_memalign"];

/// Runs the cases and prints the cost of one iteration of each.
pub fn measure(arguments: &[String]) -> Result<()> {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("instructions-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("no folder for profiles")?;
    let result = measure_in(&folder, arguments);
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn measure_in(folder: &Path, arguments: &[String]) -> Result<()> {
    let profile = folder.join("profile");
    let mut out = std::ffi::OsString::from("--callgrind-out-file=");
    out.push(&profile);
    let child = Command::new("valgrind")
        .args(["-q", "--tool=callgrind"])
        .args([format!("--toggle-collect={FUNCTION}"), format!("--dump-after={FUNCTION}")])
        .arg("--separate-threads=yes")
        .arg(out)
        // Otherwise long copies with `rep movsb` are one instruction per byte, on machines that
        // have it.
        .env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824")
        .arg(std::env::current_exe()?)
        .arg(COUNTED)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run valgrind; is it installed?")?;
    ensure!(child.status.success(), "under callgrind: {}", child.status);
    println!("{:<52} {:>12} {:>12}", "", "instructions", "allocations");
    for (index, line) in String::from_utf8(child.stdout)?.lines().enumerate() {
        let (times, name) = line.split_once(' ').context("not a case")?;
        let times: f64 = times.parse().context("not a case")?;
        // Each case has two profiles. The first one is of the first iterations, and includes setup.
        let file = profile.with_extension(format!("{}-01", 2 * (index + 1)));
        let text = std::fs::read_to_string(&file).context("a case has no profile")?;
        let Counts { instructions, allocations } = counts(&text);
        ensure!(instructions > 0, "{name}: nothing was counted");
        let each = |count: u64| count as f64 / times;
        println!("{name:<52} {:>12.0} {:>12.1}", each(instructions), each(allocations));
    }
    Ok(())
}

struct Counts {
    instructions: u64,
    allocations: u64,
}

/// Parses a profile. Functions are numbered where they are first named: `cfn=(7) malloc`; each
/// `calls=` line is about the preceding `cfn`.
fn counts(profile: &str) -> Counts {
    let mut counts = Counts { instructions: 0, allocations: 0 };
    let mut allocates: HashMap<&str, bool> = HashMap::new();
    let mut called = "";
    for line in profile.lines() {
        let Some((key, value)) = line.split_once(['=', ':']) else { continue };
        match key {
            "fn" | "cfn" => {
                let (number, name) = value.split_once(' ').unwrap_or((value, ""));
                if !name.is_empty() {
                    let name = name.strip_prefix("_rjem_").unwrap_or(name);
                    allocates.insert(number, ALLOCATORS.contains(&name));
                }
                called = number;
            }
            "calls" if allocates.get(called) == Some(&true) => {
                let times = value.split(' ').next().and_then(|times| times.parse().ok());
                counts.allocations += times.unwrap_or(0);
            }
            "summary" => counts.instructions += value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    counts
}
