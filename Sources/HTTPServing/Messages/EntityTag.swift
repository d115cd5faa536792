/// Compares entity tags, RFC 9110 sections 8.8.3 and 13.1.
package enum EntityTag {
    /// Whether an `If-None-Match` or, with `strong`, an `If-Match` field names the tag.
    ///
    /// `field` is `*` or a list of tags, `tag` the representation's own with its quotes; with `strong`, weak tags match nothing.
    package static func list(_ field: String, contains tag: String, strong: Bool = false) -> Bool {
        if field.trimmingPrefix(while: { $0 == " " }) == "*" { return true }
        var rest = Substring(field)
        while true {
            rest = rest.drop { $0 == " " || $0 == "\t" || $0 == "," }
            guard !rest.isEmpty else { return false }
            let isWeak = rest.hasPrefix("W/")
            if isWeak { rest = rest.dropFirst(2) }
            guard rest.first == "\"", let end = rest.dropFirst().firstIndex(of: "\"") else { return false }
            let candidate = rest[...end]
            if candidate == tag && !(isWeak && strong) { return true }
            rest = rest[rest.index(after: end)...]
        }
    }
}
