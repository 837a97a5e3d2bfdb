//! A toy shell that simulates all programs in the demo's pods.

use session_recording::{Activity, Stream};

use super::files::Files;
use super::{Target, is_set, values};

/// Maximum number for `seq`, about 20 MB of output.
const MAX_SEQ: u64 = 4_000_000;
/// Maximum size of an uploaded archive in bytes.
const MAX_ARCHIVE: usize = 256 << 20;

/// What consumes the input.
enum Program {
    /// Not started.
    None,
    /// Lines are commands.
    Shell,
    /// Input is printed.
    Cat,
    /// An archive is collected, to be extracted to a directory.
    Extract(String, Vec<u8>),
    /// The main process of a container, which prints what it is sent.
    Main,
}

/// The shell of one session.
pub(super) struct Shell {
    pod: String,
    files: Files,
    arguments: Vec<String>,
    is_attached: bool,
    tty: bool,
    stdin: bool,
    size: (u16, u16),
    program: Program,
    line: Vec<u8>,
    last_code: i32,
    exit: Option<i32>,
    output: Vec<(Stream, Vec<u8>)>,
}

const ENVIRONMENT: [(&str, &str); 3] = [
    ("HOME", "/root"),
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
];

impl Shell {
    pub(super) fn new(target: &Target, files: Files) -> Shell {
        Shell {
            pod: target.pod.clone(),
            files,
            arguments: values(&target.query, "command"),
            is_attached: target.activity == Activity::Attach,
            tty: is_set(&target.query, "tty"),
            stdin: is_set(&target.query, "stdin"),
            size: (80, 24),
            program: Program::None,
            line: Vec::new(),
            last_code: 0,
            exit: None,
            output: Vec::new(),
        }
    }

    /// Returns the exit code, if the program has ended.
    pub(super) fn exit_code(&self) -> Option<i32> {
        self.exit
    }

    pub(super) fn take_output(&mut self) -> Vec<(Stream, Vec<u8>)> {
        std::mem::take(&mut self.output)
    }

    pub(super) fn resized(&mut self, columns: u16, rows: u16) {
        self.size = (columns, rows);
    }

    /// Starts the program.
    pub(super) fn start(&mut self) {
        if self.is_attached {
            let pod = self.pod.clone();
            self.print(Stream::Stdout, &format!("{pod}: attached\n"));
            self.program = Program::Main;
            if !self.stdin {
                self.exit = Some(0);
            }
            return;
        }
        let arguments = std::mem::take(&mut self.arguments);
        let name = arguments.first().map_or("", |name| name.rsplit('/').next().unwrap_or(name));
        match (name, arguments.get(1).map(String::as_str)) {
            ("sh" | "bash" | "ash", Some(option)) if option.ends_with('c') => {
                let script = arguments.get(2).cloned().unwrap_or_default();
                self.script(&script);
                self.exit.get_or_insert(self.last_code);
            }
            ("sh" | "bash" | "ash", _) => {
                self.program = Program::Shell;
                if !self.stdin {
                    self.exit = Some(0);
                }
                self.prompt();
            }
            _ => {
                self.run(&arguments, Stream::Stdout);
                if matches!(self.program, Program::None) {
                    self.exit.get_or_insert(self.last_code);
                } else if !self.stdin {
                    self.input_ended();
                }
            }
        }
    }

    /// Handles input.
    pub(super) fn input(&mut self, bytes: &[u8]) {
        if let Program::Extract(_, archive) = &mut self.program {
            if archive.len() + bytes.len() <= MAX_ARCHIVE {
                archive.extend_from_slice(bytes);
            }
            return;
        }
        if matches!(self.program, Program::Cat) && !self.tty {
            self.output.push((Stream::Stdout, bytes.to_vec()));
            return;
        }
        for byte in bytes {
            if self.exit.is_some() {
                return;
            }
            self.typed(*byte);
        }
    }

    /// Handles the end of the input.
    pub(super) fn input_ended(&mut self) {
        match std::mem::replace(&mut self.program, Program::None) {
            Program::Extract(dir, archive) => {
                let code = if self.files.extract(&self.pod, &dir, &archive) { 0 } else { 2 };
                if code != 0 {
                    self.print(Stream::Stderr, "tar: the archive is invalid, or too large\n");
                }
                self.exit = Some(code);
            }
            Program::Shell => {
                if !self.line.is_empty() {
                    let line = std::mem::take(&mut self.line);
                    self.script(&String::from_utf8_lossy(&line));
                }
                self.exit.get_or_insert(self.last_code);
            }
            Program::Cat | Program::Main => self.exit = Some(0),
            Program::None => {}
        }
    }

    /// Handles a byte like a terminal in line mode.
    fn typed(&mut self, byte: u8) {
        match byte {
            b'\r' if self.tty => self.entered(),
            b'\n' => self.entered(),
            // Ctrl-C
            3 if self.tty => {
                self.print(Stream::Stdout, "^C\n");
                self.line.clear();
                match self.program {
                    Program::Shell => self.prompt(),
                    _ => self.exit = Some(130),
                }
            }
            // Ctrl-D
            4 if self.tty => {
                if self.line.is_empty() {
                    self.print(Stream::Stdout, "\n");
                    self.input_ended();
                }
            }
            8 | 0x7f if self.tty => {
                if self.line.pop().is_some() {
                    self.print(Stream::Stdout, "\u{8} \u{8}");
                }
            }
            _ => {
                self.line.push(byte);
                if self.tty {
                    self.output.push((Stream::Stdout, vec![byte]));
                }
            }
        }
    }

    fn entered(&mut self) {
        if self.tty {
            self.print(Stream::Stdout, "\n");
        }
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line).into_owned();
        match self.program {
            Program::Shell => {
                self.script(&text);
                if self.exit.is_none() && matches!(self.program, Program::Shell) {
                    self.prompt();
                }
            }
            _ => self.print(Stream::Stdout, &format!("{text}\n")),
        }
    }

    fn prompt(&mut self) {
        if self.tty {
            self.print(Stream::Stdout, "/ # ");
        }
    }

    fn print(&mut self, stream: Stream, text: &str) {
        // A terminal has only one output stream, and needs carriage returns.
        let (stream, text) = match self.tty {
            true => (Stream::Stdout, text.replace('\n', "\r\n")),
            false => (stream, text.to_owned()),
        };
        self.output.push((stream, text.into_bytes()));
    }

    /// Runs commands separated by `;`, `&&` and line ends.
    fn script(&mut self, text: &str) {
        for line in text.split(['\n', ';']) {
            for command in line.split("&&") {
                let mut words = self.words(command);
                let mut stream = Stream::Stdout;
                words.retain(|word| match word.as_str() {
                    ">&2" | "1>&2" => {
                        stream = Stream::Stderr;
                        false
                    }
                    _ => true,
                });
                if words.is_empty() {
                    continue;
                }
                self.run(&words, stream);
                if self.exit.is_some() {
                    return;
                }
                if self.last_code != 0 {
                    break;
                }
            }
        }
    }

    /// Splits a command into words; supports quotes and `$`.
    fn words(&self, text: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        let mut characters = text.chars().peekable();
        while let Some(c) = characters.next() {
            match (quote, c) {
                (None, '\'' | '"') => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (Some(open), c) if open == c => quote = None,
                (None, c) if c.is_whitespace() => words.extend(word.take()),
                (None | Some('"'), '$') => {
                    let mut name = String::new();
                    if characters.next_if_eq(&'?').is_some() {
                        name.push('?');
                    }
                    while let Some(c) =
                        characters.next_if(|c| name != "?" && (c.is_alphanumeric() || *c == '_'))
                    {
                        name.push(c);
                    }
                    let known = ENVIRONMENT.iter().find(|(known, _)| *known == name);
                    let value = match name.as_str() {
                        "?" => self.last_code.to_string(),
                        "HOSTNAME" => self.hostname().to_owned(),
                        _ => known.map_or(String::new(), |(_, value)| (*value).to_owned()),
                    };
                    word.get_or_insert_default().push_str(&value);
                }
                _ => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }

    fn hostname(&self) -> &str {
        self.pod.rsplit('/').next().unwrap_or_default()
    }

    fn run(&mut self, words: &[String], stream: Stream) {
        let Some((name, arguments)) = words.split_first() else { return };
        let name = name.rsplit('/').next().unwrap_or(name);
        let first = arguments.first().map_or("", String::as_str);
        self.last_code = 0;
        match name {
            "echo" => self.print(stream, &format!("{}\n", arguments.join(" "))),
            "printf" => self.print(stream, &first.replace("\\n", "\n").replace("\\t", "\t")),
            "true" | ":" => {}
            "false" => self.last_code = 1,
            "pwd" => self.print(stream, "/\n"),
            "whoami" => self.print(stream, "root\n"),
            "hostname" => {
                let text = format!("{}\n", self.hostname());
                self.print(stream, &text);
            }
            "env" => {
                let hostname = [("HOSTNAME", self.hostname())];
                let all = ENVIRONMENT.iter().chain(&hostname);
                let text: String = all.map(|(name, value)| format!("{name}={value}\n")).collect();
                self.print(stream, &text);
            }
            "stty" => {
                let (columns, rows) = self.size;
                self.print(stream, &format!("{rows} {columns}\n"));
            }
            "seq" => {
                let (from, to) = match arguments.get(1) {
                    Some(second) => (first.parse().unwrap_or(1), second.parse().unwrap_or(0)),
                    None => (1, first.parse().unwrap_or(0)),
                };
                let to = u64::min(to, MAX_SEQ);
                let text: String = (from..=to).map(|number: u64| format!("{number}\n")).collect();
                self.print(stream, &text);
            }
            "exit" => self.exit = Some(first.parse().unwrap_or(0) & 0xff),
            "ls" => {
                let dir = if first.is_empty() { "/" } else { first };
                let names = self.files.list(&self.pod, dir);
                let text: String = names.iter().map(|name| format!("{name}\n")).collect();
                self.print(stream, &text);
            }
            "test" => {
                let is_dir = self.files.is_dir(&self.pod, arguments.get(1).map_or("", |path| path));
                self.last_code = i32::from(!(first == "-d" && is_dir));
            }
            "cat" if first.is_empty() || first == "-" => self.program = Program::Cat,
            "cat" => match self.files.read(&self.pod, first) {
                Some(bytes) if self.tty => self.print(stream, &String::from_utf8_lossy(&bytes)),
                Some(bytes) => self.output.push((stream, bytes)),
                None => self.fail(1, &format!("cat: {first}: No such file or directory\n")),
            },
            "tar" => self.tar(arguments),
            _ => self.fail(127, &format!("sh: {name}: not found\n")),
        }
    }

    /// The commands of `kubectl cp`: `tar cf - PATH`, `tar -xmf - -C DIR`.
    fn tar(&mut self, arguments: &[String]) {
        let option = |wanted: char| {
            let mut short = arguments.iter().filter(|argument| !argument.starts_with("--"));
            short.next().is_some_and(|argument| argument.contains(wanted))
        };
        if option('x') {
            let at = arguments.iter().position(|argument| argument == "-C");
            let dir = at.and_then(|at| arguments.get(at + 1)).map_or("/", |dir| dir);
            self.program = Program::Extract(dir.to_owned(), Vec::new());
        } else if let Some(path) = arguments.last().filter(|_| option('c')) {
            let path = format!("/{}", path.trim_start_matches('/'));
            match self.files.archive(&self.pod, &path) {
                Some(archive) => self.output.push((Stream::Stdout, archive)),
                None => self.fail(2, &format!("tar: {path}: No such file or directory\n")),
            }
        } else {
            self.fail(2, "tar: only cf - PATH and xf - are known here\n");
        }
    }

    fn fail(&mut self, code: i32, message: &str) {
        self.print(Stream::Stderr, message);
        self.last_code = code;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(query: &str, input: &[u8]) -> (String, String, Option<i32>) {
        let target = Target {
            activity: Activity::Exec,
            pod: "default/web".to_owned(),
            query: query.to_owned(),
        };
        let mut shell = Shell::new(&target, Files::default());
        shell.start();
        shell.input(input);
        if shell.exit_code().is_none() {
            shell.input_ended();
        }
        let (mut stdout, mut stderr) = (String::new(), String::new());
        for (stream, bytes) in shell.take_output() {
            let text = String::from_utf8(bytes).unwrap();
            if stream == Stream::Stderr { &mut stderr } else { &mut stdout }.push_str(&text);
        }
        (stdout, stderr, shell.exit_code())
    }

    #[test]
    fn commands_run_with_and_without_a_shell() {
        let own = |text: &str| text.to_owned();
        assert_eq!(run("command=echo&command=a+b", b""), (own("a b\n"), own(""), Some(0)));
        let script = "command=sh&command=-c&command=echo+out;echo+err+%3E%262;exit+3";
        assert_eq!(run(script, b""), (own("out\n"), own("err\n"), Some(3)));
        assert_eq!(run("command=cat&stdin=true", b"x\ny"), (own("x\ny"), own(""), Some(0)));
        assert_eq!(
            run("command=seq&command=2&command=4", b""),
            (own("2\n3\n4\n"), own(""), Some(0))
        );
        let (_, stderr, code) = run("command=nope", b"");
        assert_eq!((stderr.as_str(), code), ("sh: nope: not found\n", Some(127)));
        let piped = run("command=sh&stdin=true", b"hostname\nfalse\necho $?\nexit 4\n");
        assert_eq!(piped, (own("web\n1\n"), own(""), Some(4)));
    }

    #[test]
    fn a_terminal_echoes_what_is_typed() {
        let (stdout, _, code) =
            run("command=sh&stdin=true&tty=true", b"ecx\x7fho 'hi  you'\rexit 5\r");
        assert_eq!(stdout, "/ # ecx\u{8} \u{8}ho 'hi  you'\r\nhi  you\r\n/ # exit 5\r\n");
        assert_eq!(code, Some(5));
    }
}
