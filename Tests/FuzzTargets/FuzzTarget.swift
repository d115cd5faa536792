package import Tensors

/// A reader of what peers send, under made-up input.
///
/// Cases are structured: good input with damage that a grammar or a writer would make, so that most of them get past the
/// first check. Each case has a generator of its own and can be repeated alone.
package protocol FuzzTarget: SendableMetatype {
    /// As the command line names it.
    static var name: String { get }
    /// How many cases the tests run.
    static var testCaseCount: Int { get }

    init() async throws

    /// How many messages of a made-up peer were read so far, where a case has several.
    var messageCount: Int { get }

    /// One case.
    ///
    /// - Returns: Whether the input was taken.
    /// - Throws: ``FuzzFinding`` when something holds that never should.
    mutating func run(_ generator: inout Xoshiro256StarStar) async throws -> Bool
}

extension FuzzTarget {
    package var messageCount: Int { 0 }
}

/// What must not be: the input is shown as text where it is text.
package struct FuzzFinding: Error, CustomStringConvertible {
    package var description: String

    init(_ claim: String, _ input: some Collection<UInt8>) {
        let text = String(decoding: input.prefix(2000), as: UTF8.self)
        description = "\(claim)\ninput (\(input.count) bytes): \(text.debugDescription)"
    }
}

/// Throws a finding unless a claim holds.
func expect(
    _ isTrue: Bool,
    _ claim: @autoclosure () -> String,
    _ input: @autoclosure () -> [UInt8]
) throws(FuzzFinding) {
    guard isTrue else { throw FuzzFinding(claim(), input()) }
}

/// Runs cases of a target.
package enum FuzzRunner {
    /// All targets.
    package static let targets: [any FuzzTarget.Type] = [
        HTTPTarget.self, JSONTarget.self, SafetensorsTarget.self, RunFileTarget.self, YAMLTarget.self,
        EligibilityTarget.self,
        UpdateFileTarget.self, UploadTarget.self, PlanTarget.self, LedgerTarget.self, HostileServerTarget.self,
    ]

    /// What a series of cases came to.
    package struct Report: Sendable {
        package var cases = 0
        package var taken = 0
        /// Messages of made-up peers, where cases have several.
        package var messages = 0
    }

    /// Runs the cases of a range of numbers.
    ///
    /// - Parameters:
    ///   - target: What is tried.
    ///   - cases: Case `n` is the same in every run with the same seed.
    ///   - seed: Chooses the cases.
    ///   - willRun: Is told each case's number before it begins.
    /// - Returns: How many cases ran, and how many were taken.
    /// - Throws: The first finding, with its case's number.
    package static func run(
        _ target: any FuzzTarget.Type,
        cases: Range<Int>,
        seed: UInt64,
        willRun: (Int) -> Void = { _ in }
    ) async throws -> Report {
        var instance = try await target.init()
        var report = Report()
        for number in cases {
            willRun(number)
            var generator = Xoshiro256StarStar(seed: seed &* 0x9E37_79B9_7F4A_7C15 &+ UInt64(number))
            do {
                if try await instance.run(&generator) { report.taken += 1 }
            } catch let finding as FuzzFinding {
                var finding = finding
                finding.description = "\(target.name), seed \(seed), case \(number): \(finding.description)"
                throw finding
            }
            report.cases += 1
        }
        report.messages = instance.messageCount
        return report
    }
}

extension Xoshiro256StarStar {
    /// One of some things.
    mutating func pick<Element>(_ elements: [Element]) -> Element { elements[nextIndex(below: elements.count)] }

    /// True once in `count` times.
    mutating func oneIn(_ count: Int) -> Bool { nextIndex(below: count) == 0 }

    /// Damages bytes in one place: changes, removes, inserts, cuts or repeats.
    mutating func damage(_ bytes: inout [UInt8], with fragments: [[UInt8]]) {
        guard !bytes.isEmpty else { return }
        let place = nextIndex(below: bytes.count)
        switch nextIndex(below: 6) {
        case 0: bytes[place] = UInt8(truncatingIfNeeded: next())
        case 1: bytes[place] ^= 1 << UInt8(nextIndex(below: 8))
        case 2: bytes.remove(at: place)
        case 3: bytes.insert(contentsOf: pick(fragments), at: place)
        case 4: bytes.removeLast(nextIndex(below: bytes.count))
        default:
            let end = min(bytes.count, place + 1 + nextIndex(below: 20))
            bytes.insert(contentsOf: Array(bytes[place..<end]), at: place)
        }
    }
}
