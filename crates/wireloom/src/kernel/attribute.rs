//! The attributes of linux/wireguard.h, and the flags that stand in some of them.

pub mod device {
    pub const NAME: u16 = 2;
    pub const PRIVATE_KEY: u16 = 3;
    pub const FLAGS: u16 = 5;
    pub const LISTEN_PORT: u16 = 6;
    pub const FWMARK: u16 = 7;
    pub const PEERS: u16 = 8;
    pub const REPLACE_PEERS: u32 = 1;
}
pub mod peer {
    pub const PUBLIC_KEY: u16 = 1;
    pub const PRESHARED_KEY: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const ENDPOINT: u16 = 4;
    pub const KEEPALIVE: u16 = 5;
    pub const LAST_HANDSHAKE: u16 = 6;
    pub const RX_BYTES: u16 = 7;
    pub const TX_BYTES: u16 = 8;
    pub const ALLOWED_IPS: u16 = 9;
    pub const REMOVE_ME: u32 = 1;
    pub const REPLACE_ALLOWED_IPS: u32 = 2;
    pub const UPDATE_ONLY: u32 = 4;
}
pub mod allowed_ip {
    pub const FAMILY: u16 = 1;
    pub const ADDRESS: u16 = 2;
    pub const PREFIX_LEN: u16 = 3;
    pub const FLAGS: u16 = 4;
    pub const REMOVE_ME: u32 = 1;
}
