//! `adquill healthcheck`: asks the server on this machine whether it lives, for images without a shell or curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::http::Config;

const LIMIT: Duration = Duration::from_secs(3);

/// Succeeds when `/livez` answers 200.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let addr = config.admin_addr.unwrap_or(config.addr);
    // A server that listens everywhere is asked on the loopback.
    let ip = if addr.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { addr.ip() };
    let addr = SocketAddr::new(ip, addr.port());
    let mut stream =
        TcpStream::connect_timeout(&addr, LIMIT).with_context(|| format!("no server answers on {addr}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "GET /livez HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n")?;
    let mut head = [0; 15];
    stream.read_exact(&mut head).with_context(|| format!("{addr} did not answer"))?;
    if &head[9..12] != b"200" {
        bail!("{addr} answered {}", String::from_utf8_lossy(&head[9..12]));
    }
    Ok(())
}
