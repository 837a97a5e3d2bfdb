//! `kubectl exec`, `attach`, `cp` and `port-forward` in the demo, over WebSocket and SPDY: the
//! recordings contain what they print.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use session_recording::read::{Item, Recording, summary};
use session_recording::{Stream, files};

use crate::support::proxy::Process;
use crate::support::{TempDir, wait_for};

struct Demo {
    process: Process,
    dir: TempDir,
    websocket: &'static str,
}

impl Demo {
    async fn start(websocket: &'static str) -> Demo {
        let dir = TempDir::new();
        let folder = dir.path("").display().to_string();
        let process = Process::start(&["demo", "--dir", &folder].map(str::to_owned));
        let mut demo = Demo { process, dir, websocket };
        wait_for("the demo's kubeconfig", || {
            assert!(demo.process.ended().is_none(), "the demo ended:\n{}", demo.process.stderr());
            demo.dir.path("kubeconfig").exists().then_some(())
        })
        .await;
        demo
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", self.dir.path("kubeconfig"))
            .env("HOME", self.dir.path(""))
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", self.websocket)
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", self.websocket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    async fn run(&self, arguments: &[&str], input: &'static [u8]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input).unwrap();
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap()
    }

    /// Returns the completed recordings once there are this many.
    async fn recordings(&self, count: usize) -> Vec<PathBuf> {
        wait_for("the recordings", || {
            let found = files::recordings(&self.dir.path("sessions")).unwrap_or_default();
            (found.len() == count).then_some(found)
        })
        .await
    }
}

/// Returns the recorded bytes of standard output and standard error.
fn content(path: &Path) -> (Vec<u8>, Vec<u8>) {
    let mut recording = Recording::open(path).unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(item) = recording.next_item().unwrap() {
        if let Item::Output { stream, bytes, .. } = item {
            let out = if stream == Stream::Stderr { &mut stderr } else { &mut stdout };
            out.extend_from_slice(&bytes);
        }
    }
    (stdout, stderr)
}

async fn sessions(websocket: &'static str) {
    if !test_support::has_kubectl() {
        return;
    }
    let demo = Demo::start(websocket).await;
    let script = "echo out; echo err >&2; exit 3";
    let exec = demo.run(&["exec", "hello-0", "--", "sh", "-c", script], b"").await;
    assert_eq!((exec.status.code(), exec.stdout.as_slice()), (Some(3), &b"out\n"[..]), "{exec:?}");
    assert!(exec.stderr.starts_with(b"err\n"), "{exec:?}");
    let cat = demo.run(&["exec", "-i", "hello-0", "--", "cat"], b"typed\nand more").await;
    assert_eq!(cat.stdout, b"typed\nand more", "{cat:?}");
    // 2 MB; the bytes of the terminal are those of the recording.
    let long = demo.run(&["exec", "hello-0", "--", "seq", "300000"], b"").await;
    assert!(long.status.success() && long.stdout.len() > 1_900_000);
    let attach = demo.run(&["attach", "-i", "hello-0"], b"to the process\n").await;
    assert!(attach.stdout.ends_with(b"to the process\n"), "{attach:?}");

    let paths = demo.recordings(4).await;
    assert_eq!(content(&paths[0]), (b"out\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(summary(&paths[0]).unwrap().unwrap().exit_code, Some(3));
    assert_eq!(content(&paths[1]).0, cat.stdout);
    assert_eq!(summary(&paths[1]).unwrap().unwrap().bytes_in, 14);
    assert!(content(&paths[2]).0 == long.stdout, "the content differs");
    assert_eq!(content(&paths[3]).0, attach.stdout);

    let (there, back) = (demo.dir.path("there"), demo.dir.path("back"));
    let blob: Vec<u8> =
        (0..100_000_u32).map(|number| (number.wrapping_mul(number) >> 7) as u8).collect();
    std::fs::write(&there, &blob).unwrap();
    let copied = demo.run(&["cp", there.to_str().unwrap(), "hello-0:/tmp/blob"], b"").await;
    assert!(copied.status.success(), "{copied:?}");
    let copied = demo.run(&["cp", "hello-0:/tmp/blob", back.to_str().unwrap()], b"").await;
    assert!(copied.status.success(), "{copied:?}");
    assert!(std::fs::read(&back).unwrap() == blob, "the copy differs");

    let mut forward = demo.command(&["port-forward", "hello-0", ":80"]).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(forward.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let port: u16 = line.split(" -> ").next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let response = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    })
    .await
    .unwrap();
    assert!(response.ends_with("hello from default/hello-0\n"), "{response}");
    forward.kill().unwrap();
    forward.wait().unwrap();
    let paths = demo.recordings(8).await;
    let forwarded = summary(paths.last().unwrap()).unwrap().unwrap();
    assert_eq!(forwarded.ports, [80]);
    assert_eq!((forwarded.bytes_in, forwarded.bytes_out), (27, response.len() as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_over_websocket_work_and_are_recorded() {
    sessions("true").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_over_spdy_work_and_are_recorded() {
    sessions("false").await;
}

/// `kubectl` in a terminal that the test controls.
struct Terminal {
    kubectl: Child,
    master: File,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Terminal {
    fn start(mut command: Command, columns: u16, rows: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        tcsetwinsize(&master, size(columns, rows)).unwrap();
        let slave = || File::options().read(true).write(true).open(&name).unwrap();
        let kubectl = command.stdin(slave()).stdout(slave()).spawn().unwrap();
        drop(command);
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut input, output) = (master.try_clone().unwrap(), shown.clone());
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails when the last process has closed the terminal.
            while let Ok(read @ 1..) = input.read(&mut buffer) {
                output.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Terminal { kubectl, master, shown, reader }
    }

    async fn shows(&self, what: &str) {
        wait_for(&format!("the terminal to show {what:?}"), || {
            let shown = self.shown.lock().unwrap();
            shown.windows(what.len()).any(|part| part == what.as_bytes()).then_some(())
        })
        .await;
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.master, size(columns, rows)).unwrap();
        kill_process(Pid::from_child(&self.kubectl), Signal::WINCH).unwrap();
    }

    /// Waits for the end of the process. Returns the exit code, and everything that was shown.
    async fn end(mut self) -> (Option<i32>, Vec<u8>) {
        let code = wait_for("kubectl to end", || self.kubectl.try_wait().unwrap()).await.code();
        self.reader.join().unwrap();
        (code, std::mem::take(&mut self.shown.lock().unwrap()))
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

async fn terminals(websocket: &'static str) {
    let demo = Demo::start(websocket).await;
    let command = demo.command(&["exec", "-it", "hello-0", "--", "sh"]);
    let mut terminal = Terminal::start(command, 100, 30);
    terminal.shows("/ # ").await;
    terminal.types("stty size\r");
    terminal.shows("30 100\r\n/ # ").await;
    terminal.types("echo größe \"a b\"\r");
    terminal.shows("größe a b\r\n/ # ").await;
    terminal.resize(132, 43);
    // The size is sent on another channel than the input.
    wait_for("the new size in the recording", || {
        let open = std::fs::read_dir(demo.dir.path("sessions")).unwrap().flatten();
        let mut open = open.map(|entry| std::fs::read(entry.path()).unwrap_or_default());
        open.any(|text| text.windows(6).any(|part| part == b"132x43")).then_some(())
    })
    .await;
    terminal.types("stty size\r");
    terminal.shows("43 132\r\n/ # ").await;
    terminal.types("exit 5\r");
    let (code, shown) = terminal.end().await;
    assert_eq!(code, Some(5));

    let paths = demo.recordings(1).await;
    let recorded = content(&paths[0]);
    let text = String::from_utf8_lossy;
    assert_eq!((text(&recorded.0), text(&recorded.1)), (text(&shown), text(b"")));
    assert_eq!(summary(&paths[0]).unwrap().unwrap().exit_code, Some(5));
    let mut recording = Recording::open(&paths[0]).unwrap();
    assert!(recording.header.description.tty);
    let mut sizes = Vec::new();
    while let Some(item) = recording.next_item().unwrap() {
        if let Item::Resize { columns, rows, .. } = item {
            sizes.push((columns, rows));
        }
    }
    assert_eq!((sizes.first(), sizes.last()), (Some(&(100, 30)), Some(&(132, 43))), "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminals_over_websocket_are_recorded_as_they_were_shown() {
    terminals("true").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminals_over_spdy_are_recorded_as_they_were_shown() {
    terminals("false").await;
}
