import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// An IPv4 or IPv6 address.
package struct NetworkAddress: Hashable, Sendable {
    /// 4 or 16 bytes, network order; IPv4 mapped into IPv6 is held as IPv4.
    let bytes: [UInt8]

    /// Parses a numeric address, with or without brackets, port and zone; `nil` for any other text.
    package init?(_ text: some StringProtocol) {
        var text = String(text)
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { return nil }
            text = String(text[text.index(after: text.startIndex)..<end])
        } else if text.filter({ $0 == ":" }).count == 1, let colon = text.firstIndex(of: ":") {
            text = String(text[..<colon])
        }
        if let percent = text.firstIndex(of: "%") { text = String(text[..<percent]) }
        var four = in_addr()
        if inet_pton(AF_INET, text, &four) == 1 {
            bytes = withUnsafeBytes(of: &four) { Array($0.prefix(4)) }
            return
        }
        var six = in6_addr()
        guard inet_pton(AF_INET6, text, &six) == 1 else { return nil }
        let all = withUnsafeBytes(of: &six) { Array($0.prefix(16)) }
        let isMapped = all.prefix(10).allSatisfy { $0 == 0 } && all[10] == 255 && all[11] == 255
        bytes = isMapped ? Array(all.suffix(4)) : all
    }

    /// The key by which limits count a party: an IPv4 address, or the /64 that an IPv6 host has to itself.
    package var party: String {
        guard bytes.count == 16 else { return bytes.map(String.init).joined(separator: ".") }
        let groups = stride(from: 0, to: 8, by: 2).map {
            String(UInt16(bytes[$0]) << 8 | UInt16(bytes[$0 + 1]), radix: 16)
        }
        return groups.joined(separator: ":") + "::/64"
    }

    /// The whole address as text.
    var text: String {
        guard bytes.count == 16 else { return party }
        var address = in6_addr()
        withUnsafeMutableBytes(of: &address) { $0.copyBytes(from: bytes) }
        var name = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        guard inet_ntop(AF_INET6, &address, &name, socklen_t(name.count)) != nil else { return "" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// A list of addresses and networks, such as `10.0.0.0/8` and `::1`.
package struct NetworkList: Sendable {
    private var networks: [(bytes: [UInt8], prefix: Int)] = []

    /// Parses each entry.
    ///
    /// - Returns: `nil` if an entry is neither an address nor a network.
    package init?(_ entries: [String]) {
        for entry in entries {
            let sides = entry.split(separator: "/", omittingEmptySubsequences: false)
            guard sides.count <= 2, let address = NetworkAddress(sides[0]) else { return nil }
            var prefix = address.bytes.count * 8
            if sides.count == 2 {
                guard let given = Int(sides[1]), (0...prefix).contains(given) else { return nil }
                prefix = given
            }
            networks.append((address.bytes, prefix))
        }
    }

    package var isEmpty: Bool { networks.isEmpty }

    package func contains(_ address: NetworkAddress) -> Bool {
        networks.contains { network in
            guard network.bytes.count == address.bytes.count else { return false }
            let whole = network.prefix / 8
            guard network.bytes.prefix(whole) == address.bytes.prefix(whole) else { return false }
            let rest = network.prefix % 8
            guard rest > 0 else { return true }
            let mask = UInt8.max << (8 - rest)
            return network.bytes[whole] & mask == address.bytes[whole] & mask
        }
    }
}

/// Finds the caller behind trusted proxies.
package enum ForwardedAddress {
    /// The first address from the right that is not a trusted proxy's: everything further left can be forged.
    ///
    /// A proxy writes one of the two fields, and most pass the other one on as its sender wrote it. If both are there and name
    /// different callers, one is forged and nobody can tell which, so the peer's address is returned.
    ///
    /// - Parameters:
    ///   - peer: The address at the other end of the connection.
    ///   - forwarded: The `Forwarded` field (RFC 7239).
    ///   - legacy: The `X-Forwarded-For` field.
    ///   - proxies: The trusted proxies.
    /// - Returns: The caller's address as text; `peer` if it is no trusted proxy, or if no field names a caller.
    package static func client(peer: String, forwarded: String?, legacy: String?, proxies: NetworkList) -> String {
        guard !proxies.isEmpty, let address = NetworkAddress(peer), proxies.contains(address) else { return peer }
        let named = [forwarded.map(elements), legacy.map(entries)].compactMap { $0 }.map { chain in
            nearest(in: chain, peer: peer, proxies)
        }
        guard let first = named.first, named.allSatisfy({ $0 == first }) else { return peer }
        return first
    }

    private static func nearest(in chain: [String], peer: String, _ proxies: NetworkList) -> String {
        var nearest = peer
        for entry in chain.reversed() {
            // Behind an obfuscated or malformed hop nothing can be known.
            guard let hop = NetworkAddress(entry) else { return nearest }
            nearest = hop.text
            guard proxies.contains(hop) else { return nearest }
        }
        return nearest
    }

    private static func elements(_ forwarded: String) -> [String] {
        forwarded.split(separator: ",").map { element in
            let pairs = element.split(separator: ";").map { $0.trimmingCharacters(in: .whitespaces) }
            let value = pairs.first { $0.lowercased().hasPrefix("for=") }?.dropFirst(4) ?? ""
            return value.trimmingCharacters(in: CharacterSet(charactersIn: "\""))
        }
    }

    private static func entries(_ legacy: String) -> [String] {
        legacy.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
    }
}
