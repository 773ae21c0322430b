//! The HTTP side in this process: a router over a generator that tests steer, and a server on a free port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adquill::engine::request::{Generation, GenerationRequest, Generator, ModelInfo, Readiness, Refusal};
use adquill::http::{AppState, Config, Drain, Server, admin_router, auth};
use adquill::service::ad_copy::AdCopyService;
use adquill::service::library::Library;
use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Refuses every request the same way, and counts them.
pub struct Refusing {
    pub refusal: Refusal,
    pub readiness: Readiness,
    pub asked: AtomicUsize,
}

impl Generator for Refusing {
    fn submit(&self, _: GenerationRequest) -> Result<Generation, Refusal> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Err(self.refusal.clone())
    }

    fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    fn model(&self) -> Option<ModelInfo> {
        None
    }
}

pub fn loading() -> Arc<Refusing> {
    let refusal = Refusal::NotReady { reason: "model loading".to_owned(), retry_after: Duration::from_secs(2) };
    let readiness = Readiness::NotReady("model loading".to_owned());
    Arc::new(Refusing { refusal, readiness, asked: AtomicUsize::new(0) })
}

/// The state over a generator.
pub fn state(generator: Arc<dyn Generator>, drain: &Drain, config: Config, auth: &auth::Config) -> AppState {
    let library = Arc::new(Library::embedded().expect("the shipped data is valid"));
    let service = AdCopyService::new(Arc::clone(&generator), library);
    AppState::new(service, generator, None, drain.clone(), config, auth).expect("the keys are valid")
}

/// A server on a free port, stopped by its drain.
pub struct TestServer {
    pub addr: SocketAddr,
    pub drain: Drain,
    pub task: JoinHandle<()>,
}

impl TestServer {
    pub async fn start(router: Router, config: Config, drain: Drain) -> Self {
        let config = Config { addr: ([127, 0, 0, 1], 0).into(), ..config };
        let server = Server::bind(&config).await.expect("a free port");
        let addr = server.local_addr();
        let admin = admin_router(&state(loading(), &drain, config, &auth::Config::default()));
        let task = tokio::spawn(server.serve(router, admin, drain.clone()));
        Self { addr, drain, task }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("the server listens")
    }

    /// Sends bytes and reads until the server closes.
    pub async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("the server reads");
        read_to_close(&mut stream).await
    }
}

/// Everything until the server closes, by a close or by a reset; fails after 20 s.
pub async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut received)).await;
    assert!(read.is_ok(), "the server keeps the connection open: {}", String::from_utf8_lossy(&received));
    String::from_utf8_lossy(&received).into_owned()
}
