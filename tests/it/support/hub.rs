//! A small Hugging Face hub on a local port: the repository listing, files by range, and faults on demand.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub does wrong.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// So many downloads are cut in the middle.
    pub cut_downloads: usize,
    /// So many requests are answered with 503.
    pub unavailable: usize,
    /// Files get this ETag instead of their own.
    pub etag: Option<String>,
    /// Downloads are answered by silence.
    pub silent: bool,
    /// Only this bearer token is let in.
    pub token: Option<String>,
}

pub struct FakeHub {
    pub endpoint: String,
    state: Arc<State>,
}

struct State {
    repo: String,
    files: BTreeMap<String, Vec<u8>>,
    faults: Mutex<Faults>,
    requests: Mutex<Vec<String>>,
}

impl FakeHub {
    /// Serves one repository until the test process ends.
    pub fn serve(repo: &str, files: &[(&str, &[u8])], faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let state =
            Arc::new(State { repo: repo.to_owned(), files, faults: Mutex::new(faults), requests: Mutex::default() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || state.answer(stream));
            }
        });
        Self { endpoint, state }
    }

    /// The paths asked for so far, each with its range: `/o/r/resolve/main/m.gguf bytes=0-`.
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl State {
    /// One request a connection.
    fn answer(&self, mut stream: TcpStream) {
        let Some((path, range, token)) = read_request(&stream) else { return };
        self.requests.lock().unwrap().push(format!("{path} {}", range.as_deref().unwrap_or("-")));
        let mut faults = self.faults.lock().unwrap();
        if faults.token.is_some() && faults.token != token {
            return respond(&mut stream, "401 Unauthorized", "", b"");
        }
        if faults.unavailable > 0 {
            faults.unavailable -= 1;
            return respond(&mut stream, "503 Service Unavailable", "", b"");
        }
        if path.starts_with("/api/models/") {
            let siblings: Vec<_> = self.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
            let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
            return respond(&mut stream, "200 OK", "content-type: application/json\r\n", body.as_bytes());
        }
        let prefix = format!("/{}/resolve/", self.repo);
        let name = path.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')).map(|(_, name)| name);
        let Some(bytes) = name.and_then(|name| self.files.get(name)) else {
            return respond(&mut stream, "404 Not Found", "", b"");
        };
        let (first, last) = parse_range(range.as_deref(), bytes.len());
        let part = &bytes[first..=last];
        let whole = part.len() > 1;
        let etag = faults.etag.clone().unwrap_or_else(|| hex_sha256(bytes));
        let headers = format!(
            "etag: \"{etag}\"\r\nx-repo-commit: {COMMIT}\r\ncontent-range: bytes {first}-{last}/{}\r\n",
            bytes.len()
        );
        if whole && faults.silent {
            drop(faults);
            // Holds the connection until the other side closes it.
            let _ = BufReader::new(stream).read_line(&mut String::new());
            return;
        }
        if whole && faults.cut_downloads > 0 {
            faults.cut_downloads -= 1;
            let head = format!("HTTP/1.1 206 Partial Content\r\n{headers}content-length: {}\r\n\r\n", part.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&part[..part.len() / 2]).unwrap();
            return;
        }
        respond(&mut stream, "206 Partial Content", &headers, part);
    }
}

pub fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_request(stream: &TcpStream) -> Option<(String, Option<String>, Option<String>)> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let (mut range, mut token) = (None, None);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => range = Some(value.to_owned()),
            "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    Some((path, range, token))
}

fn parse_range(range: Option<&str>, len: usize) -> (usize, usize) {
    let spec = range.and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.split_once('-'));
    let (first, last) = spec.unwrap_or(("0", ""));
    (first.parse().unwrap_or(0), last.parse().unwrap_or(len - 1))
}

fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // The client may have gone.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}
