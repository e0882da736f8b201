//! A network that loses answers: it hands a command to the server, waits until the server has
//! answered, and breaks the connection instead of passing the answer on.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A proxy before a server, for the runtime of one test.
#[derive(Debug)]
pub struct Proxy {
    uri: String,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    /// Tells the command by its first field.
    mark: Vec<u8>,
    to_lose: AtomicUsize,
    lost: AtomicUsize,
}

impl Proxy {
    /// A proxy before the server of `uri` that can lose answers to `command`.
    pub async fn before(uri: &str, command: &str) -> Proxy {
        let server = uri.trim_start_matches("mongodb://").split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mark = [b"\x02", command.as_bytes(), b"\0"].concat();
        let plan = Arc::new(Plan { mark, to_lose: 0.into(), lost: 0.into() });
        let shared = plan.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&server).await {
                    connect(client, server, shared.clone());
                }
            }
        });
        Proxy { uri: format!("mongodb://127.0.0.1:{port}/?directConnection=true"), plan }
    }

    /// The connection string that leads through it.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Loses the answers to the next `count` of the commands.
    pub fn lose(&self, count: usize) {
        self.plan.to_lose.store(count, Ordering::SeqCst);
    }

    /// How many answers it has lost.
    pub fn lost(&self) -> usize {
        self.plan.lost.load(Ordering::SeqCst)
    }
}

fn connect(client: TcpStream, server: TcpStream, plan: Arc<Plan>) {
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let loses = Arc::new(AtomicBool::new(false));
    tokio::spawn(requests(client_read, server_write, plan.clone(), loses.clone()));
    tokio::spawn(answers(server_read, client_write, plan, loses));
}

async fn requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    plan: Arc<Plan>,
    loses: Arc<AtomicBool>,
) -> io::Result<()> {
    loop {
        let message = message(&mut client).await?;
        if message.windows(plan.mark.len()).any(|window| window == plan.mark) {
            let lose = |left: usize| left.checked_sub(1);
            let lose = plan.to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose);
            loses.store(lose.is_ok(), Ordering::SeqCst);
        }
        server.write_all(&message).await?;
    }
}

async fn answers(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    plan: Arc<Plan>,
    loses: Arc<AtomicBool>,
) -> io::Result<()> {
    loop {
        let message = message(&mut server).await?;
        if loses.load(Ordering::SeqCst) {
            plan.lost.fetch_add(1, Ordering::SeqCst);
            return client.shutdown().await;
        }
        client.write_all(&message).await?;
    }
}

/// One message of the wire protocol, which begins with its length.
async fn message(stream: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    stream.read_exact(&mut message).await?;
    let length = u32::from_le_bytes([message[0], message[1], message[2], message[3]]);
    message.resize(length as usize, 0);
    stream.read_exact(&mut message[4..]).await?;
    Ok(message)
}
