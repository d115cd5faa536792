import StrictJSON
import Testing
import WireFormat

struct VocabularyTests {
    @Test(arguments: [
        "/", "/v1/clients", "/v1/runs/r/models/1/weights?encoding=f16", "/model", "/a/", "/a:b@c", "/%41/b", "/a?b=c..",
    ])
    func aPathOnTheSameServerIsTaken(_ text: String) throws {
        #expect(try #require(ServerPath(text)).text == text)
    }

    @Test(arguments: [
        "", "a", "@127.0.0.1:7299/steal", ".evil.example/x", ":80/x", "//evil.example/x", "/a//b", "/../x", "/a/../b",
        "/a/..",
        "/./a", "/a/.", "/%2e%2e/x", "/.%2E/x", "/a/%2E", "/v%2e%2e/1", "/a?b=%2E", "/%252e%252e/x", "/a%25", "/a%2fb",
        "/a%2F..%2Fb", "/a%5c..", "\\\\evil\\x", "/\\evil",
        "/a#b",
        "/a b", "/a\nb", "/a\rX: y", "/a\0", "/a%00", "/a%0d%0aX:%20y", "/a%1", "/a%", "/a%zz", "/é", "/a\u{202E}b",
        "/a%7f",
        "/a?b=//c", "/a?b=../c", "/a?b=c/../d",
        "http://server/x", "http:/x", " /x", "/x?a=%0a", "/{x}", "/a\"b", "/<x>", "/x|y", "/[::1]/x",
        "/" + String(repeating: "a", count: 2000),
    ])
    func aPathThatCouldLeaveTheServerIsRefused(_ text: String) { #expect(ServerPath(text) == nil) }

    @Test func aQueryCanBeTakenOff() throws {
        #expect(try #require(ServerPath("/m?encoding=f16&a=?b")).withoutQuery.text == "/m")
        #expect(try #require(ServerPath("/m")).withoutQuery.text == "/m")
    }

    @Test(arguments: [
        "", "..", ".", "../x", "a/b", "a b", "-rf", ".hidden", "a\0", "é", "a\nb", String(repeating: "a", count: 101),
        "x/../../../evil?a=b#", "a%2fb",
    ])
    func anIdIsSafeInPathsAndFileNames(_ text: String) {
        #expect(RunID(text) == nil && AssignmentID(text) == nil && ClientID(text) == nil)
    }

    @Test(arguments: ["asg_4f0c9a", "run_1", "a", "_", "A.b-c_9", "0"])
    func ordinaryIdsAreTaken(_ text: String) { #expect(AssignmentID(text)?.text == text) }

    @Test func aHashHas64LowerCaseDigits() {
        let good = String(repeating: "0a", count: 32)
        #expect(ContentHash(good)?.text == good)
        for bad in [
            "", String(good.dropLast()), good + "0", good.uppercased(), "../../" + good.dropFirst(6),
            good.dropLast() + "\0",
            good.dropLast() + "g", String(repeating: "０", count: 64),
        ] { #expect(ContentHash(String(bad)) == nil) }
        #expect(ContentHash(digest: [UInt8](repeating: 171, count: 32))?.text == String(repeating: "ab", count: 32))
        #expect(ContentHash(digest: [1]) == nil)
    }

    @Test func noNumberOfAPeerTrapsAClock() {
        for seconds in [
            -1, .nan, .infinity, -.infinity, 1e300, PeerDuration.limitSeconds.nextUp, -.leastNonzeroMagnitude,
        ] {
            #expect(PeerDuration(seconds: seconds) == nil, "\(seconds)")
        }
        let longest = PeerDuration(seconds: PeerDuration.limitSeconds)
        #expect(longest.map { ContinuousClock.now + $0.duration > .now } == true)
        #expect(PeerDuration(field: "7")?.seconds == 7)
        #expect(PeerDuration(field: "999999999999999999") == longest)
        for bad in ["", "-1", "1e300", "nan", "inf", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "9999999999999999999"] {
            #expect(PeerDuration(field: bad) == nil, "\(bad)")
        }
    }

    @Test func tokensHoldNothingThatEndsAHeaderField() {
        #expect(BearerToken("mlt_abc-_1=")?.text == "mlt_abc-_1=")
        for bad in ["", "a b", "a\r\nX-Admin: 1", "a\0", "é", String(repeating: "a", count: 501)] {
            #expect(BearerToken(bad) == nil)
        }
        #expect("\(BearerToken("mlt_secret")!)".contains("secret") == false)
    }

    @Test func textForATerminalActsOnNothing() {
        let text =
            "a\u{1B}]0;PWNED\u{07}\u{1B}[2J\u{9B}31m\u{7F}\n\u{202E}b\u{2066}\u{200B}\u{FEFF}\u{E0041}\u{2028}é日本"
        let shown = PrintableText.escaped(text)
        #expect(!shown.unicodeScalars.contains(where: PrintableText.isUnsafe))
        #expect(shown.hasPrefix("a\\u{1B}]0;PWNED\\u{7}") && shown.hasSuffix("é日本"))
        #expect(PrintableText.escaped("abcdef", limit: 3) == "abc…" && PrintableText.escaped("abc", limit: 3) == "abc")
        #expect(PrintableText.escapedLines("a\u{1B}\nb\r\nc\rd") == "a\\u{1B}\nb\nc\\u{D}d")
    }
}
