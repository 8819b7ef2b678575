//! Which user of this machine is at the other end of a connection over the loopback interface.
//!
//! A port of this machine is open to all its users, and the kernel tells no credentials of a TCP peer as it does of a Unix
//! socket's. It lists all sockets with their owners, though.

use std::net::{IpAddr, SocketAddr};

/// The kernel's lists of TCP sockets (proc_net_tcp.rst): IPv4, and IPv6 with the IPv4 connections of IPv6 sockets.
const LISTS: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// How often a list is read: it comes in pieces, and what moves between two of them can be missed.
const READINGS: u32 = 3;

/// `TCP_ESTABLISHED` (include/net/tcp_states.h). A socket that was closed has no owner, and the lists show root's uid.
const ESTABLISHED: &str = "01";

/// Whether the peer's socket belongs to one's own user or to root, who can do everything anyway. Whoever cannot be found is
/// a stranger.
pub async fn is_own(peer: SocketAddr, here: SocketAddr) -> bool {
    let owner = tokio::task::spawn_blocking(move || owner(peer, here))
        .await
        .ok()
        .flatten();
    owner.is_some_and(|owner| may_answer(owner, own_uid()))
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

fn may_answer(uid: u32, own_uid: u32) -> bool {
    uid == own_uid || uid == 0
}

fn owner(peer: SocketAddr, here: SocketAddr) -> Option<u32> {
    (0..READINGS).find_map(|_| {
        LISTS.iter().find_map(|list| {
            let text = std::fs::read_to_string(list).ok()?;
            owner_in(&text, peer, here)
        })
    })
}

/// The owner of the open connection from `peer` to `here`, both as the peer's socket has them.
fn owner_in(list: &str, peer: SocketAddr, here: SocketAddr) -> Option<u32> {
    let four = [shown(peer), shown(here)];
    let six = [shown_as_mapped(peer), shown_as_mapped(here)];
    list.lines().skip(1).find_map(|line| {
        // sl, local_address, rem_address, st, tx_queue:rx_queue, tr:tm->when, retrnsmt, uid, timeout, inode
        let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let [_, local, remote, state, _, _, _, uid, _, inode] = fields[..] else {
            return None;
        };
        let ends = [local, remote];
        let is_it = ends == four || ends == six;
        (is_it && state == ESTABLISHED && inode != "0")
            .then(|| uid.parse().ok())
            .flatten()
    })
}

/// An address as the lists have it: each 32 bits of it as a number of this machine, then the port.
fn shown(address: SocketAddr) -> String {
    let words = match address.ip() {
        IpAddr::V4(ip) => word(ip.octets()),
        IpAddr::V6(ip) => ip.octets().as_chunks().0.iter().copied().map(word).collect(),
    };
    format!("{words}:{:04X}", address.port())
}

fn shown_as_mapped(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => shown(SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())),
        IpAddr::V6(_) => shown(address),
    }
}

fn word(octets: [u8; 4]) -> String {
    format!("{:08X}", u32::from_ne_bytes(octets))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_the_owner_and_root_may_answer() {
        assert!(may_answer(1000, 1000) && may_answer(0, 1000));
        assert!(!may_answer(1001, 1000) && !may_answer(1000, 0));
    }

    #[test]
    fn the_other_end_of_a_connection_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let here = listener.local_addr().unwrap();
        let peer = TcpStream::connect(here).unwrap();
        let (server, address) = listener.accept().unwrap();
        assert_eq!(owner(address, here), Some(own_uid()));
        assert_eq!(owner(here, here), None);
        // Gone before it was looked at, it may have been anybody.
        drop(peer);
        // A program that another test starts at this moment may hold a copy until it runs.
        while owner(address, here).is_some() {
            std::thread::yield_now();
        }
        drop(server);
    }

    #[test]
    fn a_connection_of_an_ipv6_socket_is_found() {
        let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) else {
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let _peer = TcpStream::connect(here).unwrap();
        let (_server, address) = listener.accept().unwrap();
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        // The accepted end is an IPv6 socket; here it is the one that is looked for.
        assert_eq!(owner(here, address), Some(own_uid()));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_list_is_read() {
        const HEAD: &str =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0xB1C2));
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0x1F90));
        let line = |state: &str, uid: u32, inode: u32| {
            format!(
                "{HEAD}   3: 0100007F:B1C2 0100007F:1F90 {state} 00000000:00000000 00:00000000 00000000 {uid:>5} 0 {inode} 1 0 20\n"
            )
        };
        assert_eq!(owner_in(&line("01", 1001, 4711), peer, here), Some(1001));
        assert_eq!(owner_in(&line("01", 1001, 4711), here, peer), None);
        // FIN_WAIT2 and TIME_WAIT: nobody's any more, shown as root's.
        for (state, inode) in [("05", 0), ("06", 0), ("01", 0), ("05", 4711)] {
            assert_eq!(owner_in(&line(state, 0, inode), peer, here), None);
        }
        let six = format!(
            "{HEAD}   0: 0000000000000000FFFF00000100007F:B1C2 0000000000000000FFFF00000100007F:1F90 01 0:0 00:0 0 1002 0 9 1 0\n"
        );
        assert_eq!(owner_in(&six, peer, here), Some(1002));
        for garbage in [
            "",
            HEAD,
            "x\n0: 0100007F:B1C2",
            &line("01", 1, 2).replace("    1 0", "   -1 0"),
        ] {
            assert_eq!(owner_in(garbage, peer, here), None, "{garbage}");
        }
    }
}
