#if canImport(Glibc)
import Glibc
#endif

/// Network addresses as text.
enum SocketAddress {
    /// The numeric address of a connected socket's peer, without the port; IPv4 mapped into IPv6 is given as IPv4.
    static func ofPeer(_ descriptor: Int32) -> String {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                guard getpeername(descriptor, address, &length) == 0 else { return "" }
                var name = [CChar](repeating: 0, count: Int(NI_MAXHOST))
                let status = getnameinfo(address, length, &name, socklen_t(name.count), nil, 0, NI_NUMERICHOST)
                guard status == 0 else { return "" }
                let text = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
                return text.hasPrefix("::ffff:") && text.contains(".") ? String(text.dropFirst(7)) : text
            }
        }
    }
}
