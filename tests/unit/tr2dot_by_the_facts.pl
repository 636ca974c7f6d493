# SPDX-License-Identifier: BSD-2-Clause
# tr2dot once more, in the language of its ancestor, from a description of what that does: for
# test_trace_tr2dot.py, which compares. Prints pairs in the order of their keys.
use strict;
use warnings;

my (@ignored, @colored, %pairs);

sub short {
    my ($name) = @_;
    $name =~ s{(.+)\.app/Contents/MacOS/\1$}{$1.app};
    $name =~ s{^.+/([^/]+)$}{$1};
    $name =~ s{^mach_kernel.*}{mach_kernel};
    return $name;
}

while (my $line = <STDIN>) {
    chomp $line;
    if ($line =~ /^[a-z_]+\s+(\S.*\S|\S)\s+\|\s+(\S.*\S|\S)\s*:\s+\S+\s+\d+$/) {
        my ($task, $owner) = ($1, $2);
        next if $task eq '?' or $owner eq '?';
        ($task, $owner) = (short($task), short($owner));
        next if grep { $task =~ /$_/ or $owner =~ /$_/ } @ignored;
        my $key = join '|', sort $task, $owner;
        if (!$pairs{$key}) {
            my $colors = '';
            for my $name ($owner, $task) {
                $colors .= ",color=$_->[0]" for grep { $name =~ /$_->[1]/ } @colored;
            }
            $pairs{$key} = { ends => [$task, $owner], colors => $colors, bits => 0 };
        }
        $pairs{$key}{bits} |= $task lt $owner ? 1 : 2;
    } elsif ($line =~ /^option ignore (.+)/) {
        push @ignored, $1;
    } elsif ($line =~ /^option color (\w+) (.+)/) {
        push @colored, [$1, $2];
    } elsif ($line !~ /^\d+ trace records:/) {
        print STDERR "bad line $line\n";
    }
}
for my $pair (map { $pairs{$_} } sort keys %pairs) {
    my $direction = (undef, 'forward', 'back', 'none')[$pair->{bits}];
    print "\"$pair->{ends}[0]\" -> \"$pair->{ends}[1]\" [dir=$direction$pair->{colors}];\n";
}
