//! A network namespace: another host, as far as sockets can tell.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

/// Of a range that is for tests of networks (RFC 2544).
const HERE: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 2);

/// A namespace and the cable to it; dropping it removes both.
#[derive(Debug)]
pub struct Network {
    name: String,
}

impl Network {
    /// Makes one. There is one at a time: the addresses are fixed.
    pub fn start() -> Self {
        let network = Self { name: format!("tracer-{}", std::process::id()) };
        let (near, far) = (format!("tn{}", std::process::id()), format!("tf{}", std::process::id()));
        ip(&["netns", "add", &network.name]);
        ip(&["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &network.name]);
        ip(&["address", "add", &format!("{HERE}/30"), "dev", &near]);
        ip(&["link", "set", &near, "up"]);
        ip(&["-n", &network.name, "address", "add", &format!("{THERE}/30"), "dev", &far]);
        ip(&["-n", &network.name, "link", "set", &far, "up"]);
        network
    }

    /// This host, as that one sees it.
    pub fn here(&self) -> Ipv4Addr {
        HERE
    }

    /// That host.
    pub fn there(&self) -> Ipv4Addr {
        THERE
    }

    /// A command that runs over there. Only the network is another one: `ip netns exec` would give it another /sys too.
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", PathBuf::from("/run/netns").join(&self.name).display())).arg(program);
        command
    }
}

/// Connections of this host to one address go to another one, as to a Kubernetes service or a published port of a container.
/// Dropping it ends that.
#[derive(Debug)]
pub struct Translation {
    rule: Vec<String>,
}

impl Translation {
    /// Connections to `port` of this host's end of the network go to `to` (destination address translation).
    pub fn start(network: &Network, port: u16, to: std::net::SocketAddr) -> Self {
        let (here, port, to) = (network.here().to_string(), port.to_string(), to.to_string());
        let rule = ["OUTPUT", "-p", "tcp", "-d", &here, "--dport", &port, "-j", "DNAT", "--to-destination", &to];
        let translation = Self { rule: rule.map(str::to_owned).to_vec() };
        let output = translation.iptables("-A").output().expect("iptables is installed; `cargo xtask test` does it");
        assert!(output.status.success(), "iptables: {}", String::from_utf8_lossy(&output.stderr));
        translation
    }

    fn iptables(&self, action: &str) -> Command {
        let mut command = Command::new("iptables");
        command.args(["-w", "-t", "nat", action]).args(&self.rule);
        command
    }
}

impl Drop for Translation {
    fn drop(&mut self) {
        // An error means that the rule is gone.
        let _ = self.iptables("-D").status();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The cable goes with it. An error means that there is none.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn ip(arguments: &[&str]) {
    let output =
        Command::new("ip").args(arguments).output().expect("iproute2 is installed; `cargo xtask test` does it");
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}
