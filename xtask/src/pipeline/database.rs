//! A MariaDB server of its own, without any of the machine's configuration.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{demo::service::Service, run, workspace};

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes an empty server below `dir` and starts it.
pub fn start(address: SocketAddr, dir: &Path) -> Result<(Service, String)> {
    let data = dir.join("database");
    let mut install = command("mariadb-install-db")?;
    install.args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    run::output(install.arg(format!("--datadir={}", data.display())))?;
    // The first thing that the server does: no client is needed.
    let init = dir.join("init.sql");
    let grants =
        "CREATE DATABASE trading; CREATE USER 'demo'@'%' IDENTIFIED BY 'demo'; GRANT ALL ON *.* TO 'demo'@'%';\n";
    std::fs::write(&init, grants.replace("; ", ";\n"))?;
    let mut server = command("mariadbd")?;
    server.args(["--no-defaults", "--user=root", "--skip-name-resolve", "--innodb-buffer-pool-size=32M"]);
    server.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"]);
    server.arg(format!("--bind-address={}", address.ip())).arg(format!("--port={}", address.port()));
    for (option, file) in [("datadir", &data), ("socket", &dir.join("database.socket")), ("init-file", &init)] {
        server.arg(format!("--{option}={}", file.display()));
    }
    server.arg(format!("--pid-file={}", dir.join("database.pid").display()));
    let mut server = Service::start(server.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let ends = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        if let Some(status) = server.ended()? {
            bail!("mariadbd ended: {status}");
        }
        ensure!(Instant::now() < ends, "mariadbd does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    Ok((server, format!("mysql://demo:demo@{address}/trading")))
}

fn command(program: &str) -> Result<Command> {
    Ok(Command::new(workspace::find_program(program).with_context(|| format!("{program} was just set up"))?))
}
