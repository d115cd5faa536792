import Foundation
import LocalTraining
import Tensors
import Testing

struct TextTests {
    private let tokenizer = CharacterTokenizer(alphabet: CharacterTokenizer.messages)

    @Test func syntheticMessagesAreSeededAndDiffer() {
        let first = SyntheticMessages.messages(ofClient: 3, seed: 5)
        #expect(first == SyntheticMessages.messages(ofClient: 3, seed: 5))
        #expect(first != SyntheticMessages.messages(ofClient: 4, seed: 5))
        #expect(tokenizer.encode(first.joined()).allSatisfy { $0 >= 4 })
        #expect((280...400).contains(first.joined().count))
    }

    @Test func playsAreSplitByRole() {
        let text = "A:\nhello\nwait:\nyou\n\nB:\nbye\n\nA:\nagain\n\nGHOST:\n\nB:\nend\n"
        let roles = PlayScript.roles(in: text)
        #expect(roles.map(\.role) == ["A", "B"])
        #expect(roles.first?.lines == ["hello", "wait:", "you", "again"])
    }

    @Test func shakespeareHasTheExpectedRoles() throws {
        let path =
            SharedData.path("shakespeare.txt")
        // The text is not part of the repository; where it lies beside the checkout its counts are checked.
        guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { return }
        let roles = PlayScript.roles(in: text)
        #expect(roles.count == 299)
        #expect(roles.reduce(0) { $0 + $1.lines.count } == 25_555)
    }
}
