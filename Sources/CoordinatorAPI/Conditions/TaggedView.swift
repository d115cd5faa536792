import Coordination
import Foundation
import WireFormat

/// What a resource looks like, with a tag that names this look (RFC 9110 section 8.8.3).
///
/// The tag has two parts, `"STATE.REST"`: what is stored, and what passes by itself or through others' work. `If-None-Match`
/// compares the whole; `If-Match` the first part only, or an operator who was slower than a clock could never change anything.
protocol TaggedView: Encodable {
    /// The same without seconds that are left, times at which somebody was seen, and counts of others' doings.
    var lasting: Self { get }
}

extension TaggedView {
    /// The tag with its quotes.
    var tag: String {
        get throws {
            let state = try Secrets.sha256(Array(WireCoding.encode(lasting))).prefix(32)
            return "\"\(state).\(try Secrets.sha256(Array(WireCoding.encode(self))).prefix(8))\""
        }
    }
}

/// Comparing tags of ``TaggedView``.
enum StateTag {
    /// Whether an `If-Match` field names the state that `tag` names; weak tags name nothing.
    static func list(_ field: String, namesStateOf tag: String) -> Bool {
        if field.trimmingPrefix(while: { $0 == " " }) == "*" { return true }
        let state = tag.prefix { $0 != "." }
        return field.split(separator: ",").contains { member in
            let candidate = member.trimmingCharacters(in: .whitespaces)
            return candidate.hasSuffix("\"") && candidate.prefix { $0 != "." } == state
        }
    }
}

extension RunView: TaggedView {
    var lasting: Self {
        var view = self
        view.waitingFor = ""
        return view
    }
}

extension RoundView: TaggedView {
    var lasting: Self {
        var view = self
        (view.waitingFor, view.seconds, view.phaseSeconds) = ("", 0, [:])
        return view
    }
}

extension ModelVersionView: TaggedView {
    var lasting: Self { self }
}

extension PopulationView: TaggedView {
    var lasting: Self {
        var view = self
        view.clients = [:]
        return view
    }
}

extension ClientView: TaggedView {
    var lasting: Self {
        var view = self
        (view.lastSeenAt, view.secondsPerAssignment, view.participations) = (nil, nil, [:])
        return view
    }
}

extension TokenView: TaggedView {
    var lasting: Self {
        var view = self
        (view.lastUsedAt, view.usesLeft) = (nil, nil)
        return view
    }
}
