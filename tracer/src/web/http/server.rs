//! Listens, and serves a bounded number of connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use super::access::{Access, TokenError};
use super::routes::routes;
use crate::web::Web;

/// Connections at once; more wait. A browser takes six.
const MAX_CONNECTIONS: usize = 64;
/// How long a request may take to be sent.
const HEADER_TIME: Duration = Duration::from_secs(10);

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It would be open to others.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The address cannot be had.
    #[error("cannot listen on {address}: choose another one with --web ADDRESS (port 0 takes a free one)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Listens already, and answers once it is run.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    access: Access,
}

impl Server {
    /// Listens on an address: to be called before rights are given up.
    ///
    /// # Errors
    /// When the address cannot be had, or needs a token.
    pub fn listen(address: SocketAddr, token: Option<String>) -> Result<Self, ListenError> {
        // Refused before anybody could connect.
        Access::new(address, token.clone())?;
        let failed = |source| ListenError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, access: Access::new(address, token)? })
    }

    /// What to open in a browser.
    pub fn url(&self) -> String {
        format!("http://{}/?token={}", self.address, self.access.token())
    }

    /// Whether other hosts can connect.
    pub fn is_exposed(&self) -> bool {
        !self.address.ip().is_loopback()
    }

    /// Answers until it is dropped.
    ///
    /// # Errors
    /// When the runtime does not take the socket.
    pub async fn run(self, web: Arc<Web>) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let service = TowerToHyperService::new(routes(web, self.access));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!("a connection of a browser failed: {error}");
                    // Without descriptors the same error would come at once again.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let connection = http.serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(async move {
                // Browsers go away in the middle of things.
                let _ = connection.await;
                drop(permit);
            });
        }
    }
}
