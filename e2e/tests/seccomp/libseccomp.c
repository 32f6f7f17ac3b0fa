/* Compiles a profile with libseccomp in the way runc does: reads the profile's lines, writes the filter to the file that
 * it is told, and says on standard output what it knows of the calls.
 *
 *   default ACTION            first line; SECCOMP_RET_* with its data
 *   arch x86|x32              beside x86_64
 *   rule ACTION NAME [INDEX OP VALUE VALUE2]...
 *   name ACTION NAME ...      only says the numbers
 *
 *   unknown NAME              libseccomp's tables are older than the call: the rule was left out
 *   number ARCH NAME N        the call's number
 *   refused NAME ERRNO        seccomp_rule_add failed
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *name; uint32_t token; } ARCHES[] = {
    {"x86_64", SCMP_ARCH_X86_64}, {"x86", SCMP_ARCH_X86}, {"x32", SCMP_ARCH_X32},
};

static const struct { const char *name; enum scmp_compare op; } OPS[] = {
    {"SCMP_CMP_NE", SCMP_CMP_NE}, {"SCMP_CMP_LT", SCMP_CMP_LT}, {"SCMP_CMP_LE", SCMP_CMP_LE},
    {"SCMP_CMP_EQ", SCMP_CMP_EQ}, {"SCMP_CMP_GE", SCMP_CMP_GE}, {"SCMP_CMP_GT", SCMP_CMP_GT},
    {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
};

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static enum scmp_compare operator_of(const char *name) {
    for (size_t i = 0; i < sizeof OPS / sizeof *OPS; i++)
        if (!strcmp(OPS[i].name, name)) return OPS[i].op;
    fail(name);
    return 0;
}

static void add(scmp_filter_ctx ctx, uint32_t action, int number, const char *name, unsigned count,
                const struct scmp_arg_cmp *args) {
    int error = seccomp_rule_add_array(ctx, action, number, count, args);
    if (error) printf("refused %s %d\n", name, -error);
}

static void rule(scmp_filter_ctx ctx, int adding, char **save) {
    uint32_t action = strtoul(strtok_r(NULL, " \n", save), NULL, 0);
    const char *name = strtok_r(NULL, " \n", save), *word;
    struct scmp_arg_cmp args[16];
    unsigned count = 0, seen = 0, twice = 0;
    while ((word = strtok_r(NULL, " \n", save)) && count < 16) {
        unsigned index = strtoul(word, NULL, 0);
        enum scmp_compare op = operator_of(strtok_r(NULL, " \n", save));
        uint64_t value = strtoull(strtok_r(NULL, " \n", save), NULL, 0);
        uint64_t two = strtoull(strtok_r(NULL, " \n", save), NULL, 0);
        args[count++] = (struct scmp_arg_cmp){index, op, value, two};
        twice |= seen & (1u << index);
        seen |= 1u << index;
    }
    int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR) {
        printf("unknown %s\n", name);
        return;
    }
    for (size_t i = 0; i < sizeof ARCHES / sizeof *ARCHES; i++) {
        int there = seccomp_syscall_resolve_name_arch(ARCHES[i].token, name);
        if (there >= 0) printf("number %s %s %d\n", ARCHES[i].name, name, there);
    }
    if (!adding) return;
    /* runc: an argument that is named twice makes as many rules as there are conditions. */
    if (twice)
        for (unsigned i = 0; i < count; i++) add(ctx, action, number, name, 1, args + i);
    else
        add(ctx, action, number, name, count, args);
}

int main(int argc, char **argv) {
    char *line = NULL;
    size_t room = 0;
    scmp_filter_ctx ctx = NULL;
    uint32_t standard = 0;
    while (getline(&line, &room, stdin) > 0) {
        char *save, *word = strtok_r(line, " \n", &save);
        if (!strcmp(word, "default")) {
            standard = strtoul(strtok_r(NULL, " \n", &save), NULL, 0);
            if (!(ctx = seccomp_init(standard))) fail("seccomp_init");
        } else if (!strcmp(word, "arch")) {
            word = strtok_r(NULL, " \n", &save);
            for (size_t i = 0; i < sizeof ARCHES / sizeof *ARCHES; i++)
                if (!strcmp(ARCHES[i].name, word) && seccomp_arch_add(ctx, ARCHES[i].token)) fail("seccomp_arch_add");
        } else {
            int adding = !strcmp(word, "rule");
            rule(ctx, adding, &save);
        }
    }
    int out = argc == 2 ? open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
    if (out < 0 || seccomp_export_bpf(ctx, out)) fail("seccomp_export_bpf");
    const struct scmp_version *version = seccomp_version();
    printf("version %u.%u.%u\n", version->major, version->minor, version->micro);
    return 0;
}
