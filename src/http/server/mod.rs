//! The accept loop: HTTP/1.1 and HTTP/2 without TLS, every connection bounded, and an orderly end.
//!
//! axum's own server has neither a header timeout nor an idle one and takes any number of connections.

mod clock;
mod connection;
mod io;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::config::Config;
use super::drain::Drain;
use super::problem::Problem;
use super::request_id::RequestId;
use crate::telemetry::metrics::{HTTP_CONNECTIONS, HTTP_CONNECTIONS_CLOSED_TOTAL};
use connection::Limits;

#[derive(Debug, Error)]
pub enum ServerError {
    #[error("cannot listen on {addr}")]
    Bind {
        addr: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Bound sockets. Clients can connect from now on; they are answered once [`Server::serve`] runs.
#[derive(Debug)]
pub struct Server {
    main: TcpListener,
    main_addr: SocketAddr,
    admin: Option<(TcpListener, SocketAddr)>,
    config: Config,
}

impl Server {
    /// Binds the main address and, if set, the admin address.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub async fn bind(config: &Config) -> Result<Self, ServerError> {
        let (main, main_addr) = listen(config.addr).await?;
        let admin = match config.admin_addr {
            Some(addr) => Some(listen(addr).await?),
            None => None,
        };
        Ok(Self { main, main_addr, admin, config: config.clone() })
    }

    /// The real port, also when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.main_addr
    }

    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, addr)| *addr)
    }

    /// Serves until the drain has started and is over. The order: readiness is off (by the drain itself), after
    /// `drain_delay_ms` no connection is taken, accepted requests finish, and after `drain_grace_ms` what remains gets
    /// its final error. The admin listener is served to the end.
    pub async fn serve(self, router: Router, admin_router: Router, drain: Drain) {
        let limits = Limits::new(&self.config);
        let end_of_admin = Drain::default();
        let admin = async {
            if let Some((listener, _)) = self.admin {
                let config = Config { drain_delay_ms: 0, drain_grace_ms: LAST_ANSWERS_MS, ..self.config.clone() };
                serve_one(listener, admin_router, &config, &limits, &end_of_admin).await;
            }
        };
        let main = async {
            serve_one(self.main, router, &self.config, &limits, &drain).await;
            end_of_admin.start();
        };
        tokio::join!(main, admin);
    }
}

/// Given to the last answers to reach their clients.
const LAST_ANSWERS_MS: u64 = 1000;
/// After an error of accept that is ours, such as no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Bind { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

async fn serve_one(listener: TcpListener, router: Router, config: &Config, limits: &Limits, drain: &Drain) {
    let permits = config.max_connections.min(Semaphore::MAX_PERMITS);
    let room = Arc::new(Semaphore::new(permits));
    let mut connections = JoinSet::new();
    let stop = async {
        drain.started().await;
        tokio::time::sleep(Duration::from_millis(config.drain_delay_ms)).await;
    };
    tokio::pin!(stop);
    let finishing = tokio_util::sync::CancellationToken::new();
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener) => accepted,
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            metrics::counter!(HTTP_CONNECTIONS_CLOSED_TOTAL, "reason" => "too_many").increment(1);
            refuse(&stream, config.max_connections);
            continue;
        };
        let serving = connection::serve(stream, router.clone(), limits.clone(), finishing.clone());
        connections.spawn(async move {
            metrics::gauge!(HTTP_CONNECTIONS).increment(1.0);
            serving.await;
            metrics::gauge!(HTTP_CONNECTIONS).decrement(1.0);
            drop(permit);
        });
    }
    drop(listener);
    finishing.cancel();
    let all_done = async |connections: &mut JoinSet<()>| while connections.join_next().await.is_some() {};
    let grace = Duration::from_millis(config.drain_grace_ms);
    if tokio::time::timeout(grace, all_done(&mut connections)).await.is_err() {
        tracing::warn!(connections = connections.len(), grace_ms = config.drain_grace_ms, "the drain's grace is over");
        drain.close();
        let last_answers = Duration::from_millis(LAST_ANSWERS_MS);
        let _ = tokio::time::timeout(last_answers, all_done(&mut connections)).await;
    }
    connections.shutdown().await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The client left while it waited; that is no reason to pause.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers without waiting: what does not fit into the socket's buffers is lost.
fn refuse(stream: &TcpStream, limit: usize) {
    let answer = Problem::too_many_connections(limit).respond_raw(RequestId::new().as_str());
    // Unread bytes at close would turn the close into a reset, which may overtake the answer.
    let mut sink = [0; 4096];
    let _ = stream.try_read(&mut sink);
    let _ = stream.try_write(&answer);
}
