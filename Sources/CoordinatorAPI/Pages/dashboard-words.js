"use strict";
// Every word on the page, in both languages. A test holds the two lists of keys together.
const words = {
    en: {
        skip: "Skip to the content", docs: "API", signOut: "Sign out", otherLanguage: "中文", themeAuto: "Theme: system",
        themeLight: "Theme: light", themeDark: "Theme: dark", live: "Live", polling: "Live, asking every second",
        connecting: "Connecting …", lost: "Connection lost", retryIn: "Connection lost; next try in {s} s",
        lostTitle: "The server does not answer",
        unreachableText: "Nothing is known yet. This page keeps trying: is the server running, and can this machine reach it?",
        lostText: "What you see was known at {time}. This page keeps trying and catches up by itself.",
        startingTitle: "The server is starting",
        startingText: "It answers already, and first finishes what it was doing when it stopped. Nothing is lost.",
        signInTitle: "Sign in", tokenLabel: "Token",
        tokenHelp: "The server wrote the first administrator's token to the file admin-token in its data directory. It stays in this tab and is forgotten when the tab closes.",
        signInButton: "Show the dashboard",
        expiredTitle: "Your token is no longer valid",
        expiredText: "It is not known to this server, has expired, or was revoked. Enter another one; nothing was changed.",
        wrongKindTitle: "This token cannot look at the server",
        wrongKindText: "It enrolls clients or belongs to one client. The dashboard takes a viewer's, operator's or administrator's token.",
        problems: "What needs attention", error: "Error", warning: "Warning", notice: "Note",
        runs: "Runs", newRun: "New run", noRuns: "No runs yet",
        noRunsText: "A run trains one model. Create one here from a file, or in a terminal:",
        unknownRunTitle: "There is no such run",
        unknownRunText: "This server has no run {run}. It may be another server's, or the address has a slip.",
        backToRuns: "Back to the runs",
        rounds: "{done} of {all} rounds", ofRounds: "of {all}", created: "Created", running: "Running", paused: "Paused",
        completed: "Completed", cancelled: "Cancelled", failed: "Failed",
        selecting: "Selecting clients", reporting: "Collecting updates", aggregating: "Aggregating",
        committed: "Committed", abandoned: "Abandoned",
        start: "Start", pause: "Pause", resume: "Resume", cancelRun: "Cancel run", back: "Back", close: "Close",
        startTitle: "Start {name}?", startText: "The first round opens, and clients are given work. With privacy, its cost is reserved from the budget first.",
        pauseTitle: "Pause {name}?", pauseText: "No new work is handed out. Clients that are at work may still deliver, and you can resume at any time.",
        resumeTitle: "Resume {name}?", resumeText: "Clients are given work again.",
        cancelTitle: "Cancel {name} for good?", cancelText: "The open round is given up and its reservation goes back to the budget. Published models stay. A cancelled run cannot be resumed.",
        notAllowedTitle: "Your token may look, but not steer",
        notAllowedText: "You signed in as a viewer. Starting, pausing, resuming, cancelling and creating runs takes an operator's token: ask your administrator for one and sign in with it.",
        done_start: "{name} was started", done_pause: "{name} was paused", done_resume: "{name} was resumed",
        done_cancel: "{name} was cancelled", done_create: "{name} was created",
        createTitle: "Create a run", createFile: "Run file (YAML or JSON)", createText: "or write it here",
        createStart: "Start it at once", createButton: "Create", checkButton: "Check",
        createHelp: "The server checks the file and says what the run would cost. Nothing is stored until you press Create.",
        planTitle: "What this run would do", planModel: "Model", planParameters: "{n} parameters", planNoWeights: "weights are uploaded later",
        planRounds: "Rounds", planCohort: "{rounds} rounds of {goal} updates; the population has {clients} clients", planTraffic: "Traffic in all",
        planCost: "{cost} at δ = {delta} ({mechanism})", planBudget: "{after} of {limit} spent afterwards; {n} of {all} rounds fit",
        planNoise: "Noise", planNoiseText: "{n} times the longest mean update, in a round",
        termsAll: "everyone in each round", termsCohort: "{goal} updates a round", termsServer: "server: {name}", termsEncoding: "updates as {name}",
        termsNoPrivacy: "no differential privacy", termsPrivacy: "{mode}: {how}, clip {norm}", termsTarget: "target ε = {cost}", termsAmplified: "amplified by secret sampling", termsNorm: "clip now {norm}", mode_central: "central privacy", mode_local: "local privacy", kind_analytics: "words",
        claim: "Everything released, and what is open: (ε = {cost}, δ = {delta}), relation {relation}, {how}, by {by}.", amplification_none: "no amplification", amplification_poisson: "amplified by secret sampling",
        againstReaders: "Holds against readers who control no clients;", againstClients: "Holds against readers and other clients together;", againstServer: "Holds against readers, other clients and the server.",
        assumes_server_adds_noise: "the server is trusted until it has noised.", assumes_draw_is_secret: "Who was drawn, and how many, is secret: not against staff, logs, or the network.", assumes_no_client_colludes: "An earlier version's sampled votes do not protect from clients that work together.",
        termsVotes: "published from {n} votes on, by noised counts",
        cohortSecret: "Who was drawn, and how many, is secret: the cost counts on it.",
        termsTrie: "ε = {cost} by sampling, {n} votes or more", wordsFound: "Words that were found", wordsNotYet: "Nothing yet: words come with the first committed round.",
        wordsTrie: "Each has a noised count of {n} votes or more; counts are not published.", wordsError: "The noise on a count has standard deviation {n}.",
        wordsHidden: "{n} candidates with a count under {least} are not shown.", wordsMore: "The first {n}; all of them: martlet run words RUN.", createEmpty: "Choose a file or write a specification.",
        roundNow: "Round {n} of {all}", evaluationNow: "Evaluation of version {n}", tiers: "Accepted by speed, slowest first: {list}", attempt: "attempt {n}", waits: "Waits for {what}.", deadlineIn: "{s} left", deadlinePassed: "deadline passed",
        accepted: "accepted", uploading: "uploading", training: "training", assigned: "assigned", rejected: "rejected",
        failedCount: "failed", expired: "expired", goal: "goal {goal}, minimum {minimum}",
        cohortLabel: "Updates of round {n}: {accepted} of {goal} accepted, {working} in progress, {rejected} rejected, {failed} failed, {expired} expired",
        accuracy: "Accuracy", loss: "Loss", epsilon: "Privacy spent (ε)", bytes: "Bytes per round", up: "up", down: "down", seconds: "Seconds per round", phases: "Seconds and bytes by phase", phaseBytes: "{down} down, {up} up",
        ofBudget: "of {limit} at δ = {delta}", best: "best {value}, version {n}", bestVersion: "best", chartBest: "Best: {value}, version {n}.", noBudget: "no budget", downTotal: "{n} down", median: "median of a round",
        figureRounds: "Rounds", figureUpload: "Uploaded", figureTime: "Round time", clients: "Clients",
        noMetrics: "Nothing measured yet. Report a measurement with: martlet run report RUN --version N accuracy=0.5",
        noRounds: "The curve begins with the first committed round.", noPrivacy: "This run has no privacy terms.",
        round: "round {n}", chartLabel: "{title} by round: {first} at round {from}, {last} at round {to}. Use the arrow keys to read values.",
        budgetLimit: "budget {limit}",
        table: "Rounds", showTable: "Show the rounds as a table", tRound: "Round", tState: "State", tAccepted: "Accepted", tRejected: "Rejected", tFailed: "Failed",
        tExpired: "Expired", tSeconds: "Seconds", tReason: "Reason", showOlder: "Show 100 older rounds", specification: "Specification",
        budget: "Privacy budget", spent: "spent", reserved: "reserved", left: "left", fits: "{n} more rounds of {run} fit",
        fitsUnbounded: "all further rounds of {run} fit", gaugeLabel: "Privacy budget of {name}: {spent} spent, {reserved} reserved, {left} left of {limit}",
        moreRuns: "and {count} older runs: martlet run list",
        noPopulations: "No population yet. Make one with: martlet population create NAME --epsilon 8",
        working: "{n} at work now", active: "active", offline: "offline", registered: "never given work, but in secret draws", enrolled: "enrolled", revoked: "revoked", quarantined: "quarantined", byTier: "By tier",
        noClients: "No clients have enrolled.", events: "Recent events", noEvents: "Nothing has happened yet.",
        server: "Server", uptime: "Up for {time}", disk: "{free} of {total} free", version: "Version {v}", allWell: "Nothing needs your attention.",
        ev_run: "{run}: {state}", ev_round: "{run}, round {n}: {state}", ev_evaluation: "{run}, evaluation of version {n}: {state}", day: "{n} d", hour: "{n} h", minute: "{n} min", second: "{n} s",
    },
    zh: {
        skip: "跳到内容", docs: "接口", signOut: "退出", otherLanguage: "English", themeAuto: "主题：跟随系统",
        themeLight: "主题：浅色", themeDark: "主题：深色", live: "实时", polling: "实时，每秒查询",
        connecting: "正在连接……", lost: "连接已断开", retryIn: "连接已断开，{s} 秒后重试",
        lostTitle: "服务器没有应答",
        unreachableText: "目前还没有任何数据。本页会不断重试：服务器在运行吗？本机能连到它吗？",
        lostText: "现在显示的是 {time} 时的数据。本页会不断重试，恢复后自动更新。",
        startingTitle: "服务器正在启动",
        startingText: "它已能应答，正在先完成停机前未完成的工作。没有任何数据丢失。",
        signInTitle: "登录", tokenLabel: "令牌",
        tokenHelp: "服务器已把第一个管理员令牌写入数据目录中的 admin-token 文件。令牌只保存在本标签页，关闭后即被忘记。",
        signInButton: "打开仪表板",
        expiredTitle: "您的令牌已失效",
        expiredText: "本服务器不认识该令牌，或者它已过期、已被撤销。请输入另一个令牌；没有任何数据被更改。",
        wrongKindTitle: "该令牌不能查看服务器",
        wrongKindText: "它用于登记客户端，或属于某个客户端。仪表板需要查看者、操作员或管理员的令牌。",
        problems: "需要关注", error: "错误", warning: "警告", notice: "提示",
        runs: "训练任务", newRun: "新建任务", noRuns: "还没有训练任务",
        noRunsText: "一个训练任务训练一个模型。可以在这里用文件创建，也可以在终端中创建：",
        unknownRunTitle: "没有这个训练任务",
        unknownRunText: "本服务器没有训练任务 {run}。它可能属于另一台服务器，或者地址有误。",
        backToRuns: "返回任务列表",
        rounds: "{done} / {all} 轮", ofRounds: "共 {all} 轮", created: "已创建", running: "运行中", paused: "已暂停",
        completed: "已完成", cancelled: "已取消", failed: "已失败",
        selecting: "正在选择客户端", reporting: "正在收集更新", aggregating: "正在聚合",
        committed: "已提交", abandoned: "已放弃",
        start: "启动", pause: "暂停", resume: "恢复", cancelRun: "取消任务", back: "返回", close: "关闭",
        startTitle: "启动 {name}？", startText: "第一轮将打开，客户端会领到工作。如有隐私条款，会先从预算中预留这一轮的花费。",
        pauseTitle: "暂停 {name}？", pauseText: "不再分发新工作。正在工作的客户端仍可提交，您可以随时恢复。",
        resumeTitle: "恢复 {name}？", resumeText: "客户端将再次领到工作。",
        cancelTitle: "永久取消 {name}？", cancelText: "当前轮次将被放弃，预留的预算会退回。已发布的模型会保留。取消后不能恢复。",
        notAllowedTitle: "您的令牌只能查看，不能操作",
        notAllowedText: "您以查看者身份登录。启动、暂停、恢复、取消和创建任务需要操作员令牌：请向管理员索取并用它登录。",
        done_start: "{name} 已启动", done_pause: "{name} 已暂停", done_resume: "{name} 已恢复",
        done_cancel: "{name} 已取消", done_create: "{name} 已创建",
        createTitle: "新建训练任务", createFile: "任务文件（YAML 或 JSON）", createText: "或直接在此填写",
        createStart: "立即启动", createButton: "创建", checkButton: "检查",
        createHelp: "服务器会检查文件并说明任务的花费。按下“创建”之前不会保存任何内容。",
        planTitle: "这个任务会做什么", planModel: "模型", planParameters: "{n} 个参数", planNoWeights: "权重稍后上传",
        planRounds: "轮次", planCohort: "{rounds} 轮，每轮 {goal} 份更新；群体有 {clients} 个客户端", planTraffic: "总流量",
        planCost: "{cost}，δ = {delta}（{mechanism}）", planBudget: "完成后花费 {after} / {limit}；可进行 {n} / {all} 轮",
        planNoise: "噪声", planNoiseText: "每轮为最长平均更新的 {n} 倍",
        termsAll: "每轮全体参与", termsCohort: "每轮 {goal} 份更新", termsServer: "服务器：{name}", termsEncoding: "更新编码 {name}",
        termsNoPrivacy: "无差分隐私", termsPrivacy: "{mode}：{how}，裁剪 {norm}", termsTarget: "目标 ε = {cost}", termsAmplified: "由秘密抽样增强", termsNorm: "当前裁剪 {norm}", mode_central: "中心隐私", mode_local: "本地隐私", kind_analytics: "词汇",
        claim: "已发布及正在进行的全部内容：(ε = {cost}，δ = {delta})，关系 {relation}，{how}，由 {by} 计算。", amplification_none: "无增强", amplification_poisson: "由秘密抽样增强",
        againstReaders: "对不控制客户端的读者成立；", againstClients: "对读者与其他客户端合谋成立；", againstServer: "对读者、其他客户端和服务器均成立。",
        assumes_server_adds_noise: "在加噪之前需信任服务器。", assumes_draw_is_secret: "抽中了谁、多少人是秘密：对工作人员、日志和网络观察者不成立。", assumes_no_client_colludes: "早期版本的抽样投票不能防范合谋的客户端。",
        termsVotes: "加噪票数达到 {n} 才公布",
        cohortSecret: "抽中了谁、多少人是秘密：隐私开销依赖于此。",
        termsTrie: "抽样 ε = {cost}，至少 {n} 票", wordsFound: "已发现的词", wordsNotYet: "还没有：第一轮提交后才有词。",
        wordsTrie: "每个词的加噪票数至少为 {n}；计数不公布。", wordsError: "计数噪声的标准差为 {n}。",
        wordsHidden: "另有 {n} 个候选词计数低于 {least}，未显示。", wordsMore: "以上为前 {n} 个；查看全部：martlet run words RUN。", createEmpty: "请选择文件或填写任务说明。",
        roundNow: "第 {n} 轮，共 {all} 轮", evaluationNow: "评估版本 {n}", tiers: "按速度（从慢到快）已接受：{list}", attempt: "第 {n} 次尝试", waits: "正在等待：{what}。", deadlineIn: "剩余 {s}", deadlinePassed: "已到期限",
        accepted: "已接受", uploading: "上传中", training: "训练中", assigned: "已分配", rejected: "被拒绝",
        failedCount: "失败", expired: "已过期", goal: "目标 {goal}，最少 {minimum}",
        cohortLabel: "第 {n} 轮的更新：已接受 {accepted} / {goal}，进行中 {working}，被拒绝 {rejected}，失败 {failed}，过期 {expired}",
        accuracy: "准确率", loss: "损失", epsilon: "已花费隐私（ε）", bytes: "每轮字节数", up: "上传", down: "下载", seconds: "每轮秒数", phases: "各阶段秒数与字节数", phaseBytes: "下载 {down}，上传 {up}",
        ofBudget: "预算 {limit}，δ = {delta}", best: "最好 {value}，版本 {n}", bestVersion: "最好", chartBest: "最好：{value}，版本 {n}。", noBudget: "无预算", downTotal: "下载 {n}", median: "每轮中位数",
        figureRounds: "轮次", figureUpload: "上传量", figureTime: "每轮用时", clients: "客户端",
        noMetrics: "还没有测量值。可用此命令上报：martlet run report RUN --version N accuracy=0.5",
        noRounds: "第一轮提交后开始绘制曲线。", noPrivacy: "该任务没有隐私条款。",
        round: "第 {n} 轮", chartLabel: "按轮次的{title}：第 {from} 轮为 {first}，第 {to} 轮为 {last}。可用方向键读取数值。",
        budgetLimit: "预算 {limit}",
        table: "轮次", showTable: "以表格显示各轮", tRound: "轮次", tState: "状态", tAccepted: "接受", tRejected: "拒绝", tFailed: "失败",
        tExpired: "过期", tSeconds: "秒", tReason: "原因", showOlder: "再显示 100 轮更早的", specification: "任务说明",
        budget: "隐私预算", spent: "已花费", reserved: "已预留", left: "剩余", fits: "{run} 还可进行 {n} 轮",
        fitsUnbounded: "{run} 之后的所有轮次都在预算内", gaugeLabel: "{name} 的隐私预算：总额 {limit}，已花费 {spent}，已预留 {reserved}，剩余 {left}",
        moreRuns: "另有 {count} 个较早的运行：martlet run list",
        noPopulations: "还没有群体。可用此命令创建：martlet population create NAME --epsilon 8",
        working: "{n} 个正在工作", active: "活跃", offline: "离线", registered: "尚未领到工作（秘密抽样除外）", enrolled: "已登记", revoked: "已撤销", quarantined: "已隔离", byTier: "按层级",
        noClients: "还没有客户端登记。", events: "最近事件", noEvents: "还没有发生任何事。",
        server: "服务器", uptime: "已运行 {time}", disk: "可用 {free} / {total}", version: "版本 {v}", allWell: "没有需要关注的问题。",
        ev_run: "{run}：{state}", ev_round: "{run}，第 {n} 轮：{state}", ev_evaluation: "{run}，评估版本 {n}：{state}", day: "{n} 天", hour: "{n} 小时", minute: "{n} 分钟", second: "{n} 秒",
    },
};

// The server explains itself in English; these sentences have a Chinese form, anything else is shown as it came.
const chineseSentences = [
    [/^the run to be started$/, "任务被启动"],
    [/^the run to be resumed$/, "任务被恢复"],
    [/^the first round to open$/, "第一轮打开"],
    [/^the next attempt to open$/, "下一次尝试打开"],
    [/^the run to be resumed; (\d+) clients may still deliver$/, "任务被恢复；$1 个客户端仍可提交"],
    [/^the next round to open$/, "下一轮打开"],
    [/^attempt (\d+) to open in (\d+) s; the last one was abandoned: (.*)$/, "第 $1 次尝试在 $2 秒后打开；上一次已放弃：$3"],
    [/^clients to check in: (\d+) (at work|checked in), (\d+) of (\d+) (updates|measurements of version \d+) accepted, (\d+) s left to find the minimum of (\d+)(.*)$/, "客户端签到：$1 个$2，$5已接受 $3 / $4，还有 $6 秒来凑足最少 $7 个$8"],
    [/^(updates|measurements of version \d+): (\d+) of (\d+) accepted, (\d+) at work, (\d+) s left(, nobody at work: (\d+) places are open)?(.*)$/, "$1：已接受 $2 / $3，$4 个正在工作，剩余 $5 秒$6$8"],
    [/^, nobody at work: (\d+) places are open$/, "，无人工作，空缺 $1 个"],
    [/^\. The population has only (\d+) clients: enroll more, or create a run with a lower goal$/, "。该群体只有 $1 个客户端：请登记更多客户端，或新建目标更低的任务"],
    [/^\. Only (\d+) clients meet the run's requirements: enroll more, or ask for less$/, "。只有 $1 个客户端符合任务要求：请登记更多客户端，或放宽要求"],
    [/^at work$/, "正在工作"], [/^checked in$/, "已签到"], [/^updates$/, "更新"], [/^measurements of version (\d+)$/, "版本 $1 的测量"],
    [/^the aggregation of (\d+) (.*)$/, "聚合 $1 份$2"],
    [/^nothing: the run is \w+(?: \((.*)\))?$/, "无，任务已结束"],
    [/^(\d+) clients were chosen$/, "选出了 $1 个客户端"], [/^everyone who was drawn has reported$/, "抽中的客户端均已提交"],
    [/^stopped early: (.*)$/, "提前停止：$1"], [/^round (\d+) failed in (\d+) attempts: (.*)$/, "第 $1 轮经过 $2 次尝试仍失败：$3"],
    [/^the buffer is not full yet: (\d+) so far$/, "缓冲区未满：目前 $1 份"], [/^the clock went back: the wait began anew$/, "时钟回拨：重新开始等待"],
    [/^nothing: the round is \w+$/, "无，本轮已结束"],
    [/^too few clients: (\d+) checked in before the selection deadline$/, "客户端太少：选择期限前只有 $1 个签到"],
    [/^too few updates: (\d+) came before the report deadline$/, "更新太少：期限前只收到 $1 份"],
    [/^too few clients: (\d+) were at work when the selection ended$/, "客户端太少：选择结束时只有 $1 个在工作"],
    [/^too few clients: (\d+) were there to choose from when the selection ended$/, "客户端太少：选择结束时只有 $1 个可选"],
    [/^too few updates: (\d+) came from the (\d+) who were drawn$/, "更新太少：抽中的 $2 个客户端只提交了 $1 份"],
    [/^the run was cancelled$/, "任务被取消"],
    [/^the run was (\w+)$/, "任务状态已变为 $1"],
    [/^created by an operator$/, "由操作员创建"], [/^started by an operator$/, "由操作员启动"],
    [/^paused by an operator$/, "由操作员暂停"], [/^resumed by an operator$/, "由操作员恢复"],
    [/^cancelled by an operator$/, "由操作员取消"], [/^opened$/, "已打开"],
    [/^enough clients were assigned$/, "已分配足够的客户端"], [/^the report goal was reached$/, "已达到更新目标"],
    [/^the selection deadline passed$/, "选择期限已到"], [/^all rounds are committed$/, "所有轮次均已提交"],
    [/^the report deadline passed with enough updates$/, "提交期限已到，更新足够"],
    [/^model version (\d+) was published$/, "已发布模型版本 $1"],
    [/^(\d+) of the last (\d+) attempts ended without a model; the last one: (.*)\.$/, "最近 $2 次尝试中有 $1 次没有产生模型；最后一次：$3。"],
    [/^(\d+) clients did not deliver: (.*)\.$/, "$1 个客户端没有提交：$2。"],
    [/^(\d+) clients are quarantined, because their updates stood out: look at them, then release or revoke them\.$/, "$1 个客户端因更新异常被隔离：请检查，然后解除隔离或撤销。"],
    [/^The run failed: (.*)\.$/, "任务失败：$1。"],
    [/^No client has asked for work since round (\d+) opened\.$/, "第 $1 轮打开后还没有客户端来领取工作。"],
    [/^The budget of '(.*)' admits (\d+) more rounds of this run, which wants (\d+)\.$/, "“$1”的预算还允许本任务进行 $2 轮，而任务需要 $3 轮。"],
    [/^(\d+)% of the privacy budget of '(.*)' is left\.$/, "“$2”的隐私预算还剩 $1%。"],
    [/^the budget admits (\d+) of (\d+) rounds; the next one will be refused$/, "预算允许 $2 轮中的 $1 轮；下一轮会被拒绝"],
    [/^the noise of a round is (.*) times as long as the longest mean update: the run will learn little; more clients a round help$/, "每轮噪声是最长平均更新的 $1 倍：任务学不到多少；每轮增加客户端会有帮助"],
    [/^a round assigns up to (\d+) clients, and the population has (\d+)$/, "每轮最多分配 $1 个客户端，而群体只有 $2 个"],
    [/^(\d+) rounds want (\d+) participations, and (\d+) clients that take part at most (\d+) times give (\d+)$/, "$1 轮需要 $2 次参与，而 $3 个客户端每个最多 $4 次，共 $5 次"],
    [/^(\d+) MiB \((\d+)%\) are free where the data directory lies\.$/, "数据目录所在磁盘还剩 $1 MiB（$2%）。"],
];

const preferences = {
    get(name) { try { return localStorage.getItem("martlet." + name); } catch { return null; } },
    set(name, value) { try { localStorage.setItem("martlet." + name, value); } catch { /* a private window forgets */ } },
};
const chinese = "zh";
let language = document.documentElement.lang === chinese ? chinese : "en";
const isChinese = () => language === chinese;

function t(key, values) {
    const text = words[language][key] ?? words.en[key] ?? key;
    return values ? text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole) : text;
}

/** A sentence of the server in the page's language. */
function sentence(text) {
    if (!isChinese() || !text) return text ?? "";
    for (const [pattern, form] of chineseSentences) {
        const found = text.match(pattern);
        if (found) return form.replace(/\$(\d)/g, (_, index) => sentence(found[index] ?? ""));
    }
    return text;
}

/** Making a formatter costs more than using it. */
const formatters = new Map();
function formatter(least, most) {
    const name = `${language} ${least} ${most}`;
    if (!formatters.has(name)) formatters.set(name, new Intl.NumberFormat(language, { minimumFractionDigits: least, maximumFractionDigits: most }));
    return formatters.get(name);
}

function number(value, digits = 3) {
    if (value === "Infinity") return "∞";
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(1).replace("e", "·10^").replace("^+", "^");
    return formatter(size < 10 && size % 1 ? Math.min(digits, 2) : 0, digits).format(value);
}
/** A part of a budget; what rounding in the accounting leaves is nothing. */
const share = value => (Math.abs(value) < 5e-4 ? "0" : number(value, 2));
/** A measurement with three decimals, so that it does not jump about while it changes. */
const measured = value => (Number.isFinite(value) && Math.abs(value) < 1e6 ? value.toFixed(3) : "–");
const count = value => formatter(0, 3).format(value ?? 0);
function byteSize(value) {
    // Where the number of updates is secret.
    if (value === undefined) return "–";
    for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
        if (value >= size) return number(value / size, value >= 10 * size ? 1 : 2) + " " + unit;
    }
    return count(value) + " B";
}
function duration(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    const parts = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
    const first = Math.max(0, parts.findIndex(([, size]) => whole >= size));
    if (whole < 1) return t("second", { n: 0 });
    return parts.slice(first, first + 2).map(([name, size], index) => {
        const value = Math.floor((index ? whole % parts[first][1] : whole) / size);
        return value || !index ? t(name, { n: value }) : "";
    }).filter(Boolean).join(" ");
}
const clockTime = text => new Date(text).toLocaleTimeString(isChinese() ? "zh-CN" : "en-GB");
/** δ as people write it: 10⁻⁵. */
function power(value) {
    const exponent = Math.round(Math.log10(value));
    const digits = String(exponent).replace("-", "⁻").replace(/\d/g, digit => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
    return Math.abs(10 ** exponent / value - 1) < 1e-9 ? "10" + digits : value.toExponential(1);
}
