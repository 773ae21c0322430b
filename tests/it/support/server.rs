//! The real binary with the real model, on a port of its own, killed when the test ends.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::model::default_model;

/// Longest wait for anything that must happen.
const LIMIT: Duration = Duration::from_secs(60);

/// The program with a scrubbed environment.
pub fn adquill() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adquill"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A running `adquill serve`.
pub struct TestServer {
    child: Child,
    pub addr: SocketAddr,
    log: mpsc::Receiver<String>,
}

impl TestServer {
    /// Starts with the real model and waits until it is ready.
    pub fn ready() -> Self {
        Self::ready_with(&[])
    }

    /// The same with more environment.
    pub fn ready_with(environment: &[(&str, &str)]) -> Self {
        let server = Self::listening(environment);
        let started = Instant::now();
        while server.get("/readyz").0 != 200 {
            assert!(started.elapsed() < LIMIT, "the server is not ready after {} s", LIMIT.as_secs());
            std::thread::yield_now();
        }
        server
    }

    /// Starts and returns as soon as it listens.
    pub fn listening(environment: &[(&str, &str)]) -> Self {
        let mut command = adquill();
        command
            .args(["serve", "--addr", "127.0.0.1:0", "--log-format", "json"])
            .env("ADQUILL_MODELS__GENERATOR", format!("file:{}", default_model().display()))
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut before = String::new();
        let addr = loop {
            let line = log.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("it never listened:\n{before}"));
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["message"] == "listening" {
                break event["address"].as_str().expect("an address").parse().expect("an address");
            }
            before.push_str(&line);
            before.push('\n');
        };
        Self { child, addr, log }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        block_on(async {
            let response = reqwest::get(self.url(path)).await.expect("an answer");
            (response.status().as_u16(), response.text().await.expect("a body"))
        })
    }

    /// Status and JSON body.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        block_on(async {
            let response = reqwest::Client::new().post(self.url(path)).json(body).send().await.expect("an answer");
            (response.status().as_u16(), response.json().await.expect("JSON"))
        })
    }

    pub fn terminate(&self) {
        let told = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(told.success());
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status;
            }
            assert!(started.elapsed() < LIMIT, "the server did not end within {} s", LIMIT.as_secs());
            // Its log ends with the process: a line or the end of the pipe wakes this.
            let _ = self.log.recv_timeout(Duration::from_millis(100));
        }
    }

    /// Peak resident memory so far, in bytes. Linux only.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a future on a small runtime of its own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
