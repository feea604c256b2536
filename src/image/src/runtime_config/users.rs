//! `User` of an image, and what passwd(5) and group(5) of the image say about it (image-spec config.md).

use std::fmt;

use super::Error;

/// Ids of the container's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Home directory, if the image says one.
    pub home: Option<String>,
}

/// Text of the image's `/etc/passwd` and `/etc/group`; empty when they are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Databases {
    /// passwd(5).
    pub passwd: String,
    /// group(5).
    pub group: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Databases {
    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.trim().split(':').collect();
            let [name, _, uid, gid, rest @ ..] = fields.as_slice() else { return None };
            let home = rest.get(1).copied().unwrap_or_default();
            Some(Account { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.trim().split(':').collect();
            let [name, _, gid, rest @ ..] = fields.as_slice() else { return None };
            Some(Group { name, gid: gid.parse().ok()?, members: rest.first().copied().unwrap_or_default() })
        })
    }

    /// Resolves `user`, `uid`, `user:group`, `uid:gid` and the mixtures of them.
    ///
    /// A user by name gets the groups that have it for a member; a user by number, and any with a group, gets
    /// none. A number that passwd does not have has group 0. A name that it does not have is an error.
    pub fn resolve(&self, text: &str) -> Result<User, Error> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let number = id(user);
        let account = self.accounts().find(|account| match number {
            Some(uid) => account.uid == uid,
            None => account.name == user,
        });
        let (uid, gid) = match (&account, number) {
            (Some(account), _) => (account.uid, account.gid),
            (None, Some(uid)) => (uid, 0),
            (None, None) => return Err(Error::NoUser { kind: Missing::User, name: user.to_string() }),
        };
        let home = account.as_ref().map(|account| account.home.to_string()).filter(|home| !home.is_empty());
        let Some(group) = group else {
            let mut additional_gids = Vec::new();
            if number.is_none() {
                let member = |group: &Group<'_>| group.members.split(',').any(|member| member.trim() == user);
                additional_gids.extend(self.groups().filter(member).map(|group| group.gid));
                additional_gids.sort_unstable();
                additional_gids.dedup();
                additional_gids.retain(|other| *other != gid);
            }
            return Ok(User { uid, gid, additional_gids, home });
        };
        let named = || self.groups().find(|found| found.name == group).map(|found| found.gid);
        let gid = id(group).or_else(named);
        let gid = gid.ok_or_else(|| Error::NoUser { kind: Missing::Group, name: group.to_string() })?;
        Ok(User { uid, gid, additional_gids: Vec::new(), home })
    }
}

/// A number that is an id: -1 is none (chown(2), setuid(2)).
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

/// What an image does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// No such line in passwd.
    User,
    /// No such line in group.
    Group,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::User => "user",
            Missing::Group => "group",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn each_form_of_a_user_is_resolved() {
        let databases = Databases {
            passwd: "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34:web:/srv:/bin/sh\nbare:x:5:6\n"
                .into(),
            group: "root:x:0:\nstaff:x:50:web,other\nadm:x:4:web\nweb:x:34:web\n".into(),
        };
        type Case = (&'static str, u32, u32, &'static [u32], Option<&'static str>);
        let cases: [Case; 9] = [
            ("", 0, 0, &[], Some("/root")),
            ("web", 33, 34, &[4, 50], Some("/srv")),
            ("33", 33, 34, &[], Some("/srv")),
            ("web:staff", 33, 50, &[], Some("/srv")),
            ("web:7", 33, 7, &[], Some("/srv")),
            ("1000:staff", 1000, 50, &[], None),
            ("1000", 1000, 0, &[], None),
            ("1000:1001", 1000, 1001, &[], None),
            ("bare:", 5, 6, &[], None),
        ];
        for (text, uid, gid, groups, home) in cases {
            let user = databases.resolve(text).unwrap();
            let found = (user.uid, user.gid, user.additional_gids.as_slice(), user.home.as_deref());
            assert_eq!(found, (uid, gid, groups, home), "{text:?}");
        }
        for (text, told) in [
            ("nobody", "the image has no user \"nobody\""),
            ("web:none", "the image has no group \"none\""),
            ("4294967295", "the image has no user \"4294967295\""),
            ("-1", "the image has no user \"-1\""),
        ] {
            assert_eq!(databases.resolve(text).unwrap_err().to_string(), told);
        }
    }
}
