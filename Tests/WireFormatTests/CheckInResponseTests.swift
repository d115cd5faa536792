import Foundation
import Testing
import WireFormat

struct CheckInResponseTests {
    /// A long poll holds its answer, several times over, for as long as it waits.
    ///
    /// Space for an assignment in each of them cost 20 kB a poll: the assignment lies apart, and an answer without one is a few
    /// words.
    @Test func anAnswerWithoutWorkHasNoSpaceForAnAssignment() throws {
        #expect(MemoryLayout<CheckInResponse>.size <= 64)
        #expect(MemoryLayout<AssignmentBody>.size > 500, "else it need not lie apart")
    }
}
